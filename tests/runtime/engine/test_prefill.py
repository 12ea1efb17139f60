"""Prompts through the prefill graph: when it is used, and how near it is to the model's own graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.errors import BundleError, OutOfResource, RefusedByPolicy
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine import prefill as prefill_module
from edgepress.runtime.engine.batch_decoder import BatchDecoder
from edgepress.runtime.engine.decoder import Decoder
from edgepress.runtime.prepack import prepack, prepacked
from edgepress.storage import hash_tree, read_json, write_json

IDS = np.random.default_rng(3).integers(0, 300, 180).tolist()
NEAR = 0.2  # between logits of random weights, whose spread is about 1


@pytest.fixture(scope="module")
def folders(pico_llama: Path, pico_text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of 4-bit weights by their cache; read only."""
    root = tmp_path_factory.mktemp("prefill")
    compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=root / "checkpoint")
    options: dict[str, Any] = {"validate": False}
    found = {
        kv: export_bundle(root / "checkpoint", output=root / kv, kv=kv, **options) for kv in ("fp32", "fp16")
    }
    steps = "  - {pass: rtn, scheme: W4A16-g32}\n  - {pass: kv_cache, bits: 8}\n"
    recipe = root / "int8.yaml"
    recipe.write_text(f"name: int8\npasses:\n{steps}", encoding="utf-8")
    codes: dict[str, Any] = {"calibration": str(pico_text), "samples": 4, "length": 64}
    compress_model(str(pico_llama), recipe=str(recipe), output=root / "codes", **codes)
    return {**found, "int8": export_bundle(root / "codes", output=root / "int8", **options)}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Bundle]:
    """Prepack a bundle into a cache of the test's own, in which no model is too small; in chunks of 16."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepacked, "SMALLEST", 0)
    monkeypatch.setattr(prefill_module, "PREFILL_CHUNK", 16)

    def make(folder: Path) -> Bundle:
        bundle = Bundle.open(folder)
        entry = prepack.prepack(bundle)
        assert entry is not None and entry.prefill.is_file()
        return bundle

    return make


def used(decoder: Decoder) -> bool:
    return decoder.prefill_graph is not None and decoder.prefill_graph.session is not None


@pytest.mark.chain
@pytest.mark.parametrize("kv", ["fp32", "fp16", "int8"])
def test_prompts_and_continuations(kv: str, folders: dict[str, Path], made: Any) -> None:
    near = 2 * NEAR if kv == "int8" else NEAR
    bundle = made(folders[kv])
    fast, plain = Decoder.open(bundle, 1), Decoder.open(bundle, 1, prefill=False)
    assert np.abs(fast.prefill(IDS[:70]) - plain.prefill(IDS[:70])).max() < near
    assert used(fast) and not used(plain) and fast.length == 70
    for token in IDS[70:74]:
        assert np.abs(fast.step(token) - plain.step(token)).max() < near
    assert np.abs(fast.extend(IDS[74:150]) - plain.extend(IDS[74:150])).max() < near and fast.filled == 75
    for ids in (IDS[:80] + IDS[:76], IDS[:80] + IDS[:76] + IDS[5:9]):  # 76 tokens more, then four
        assert np.abs(fast.resume(ids) - plain.resume(ids)).max() < near
        assert fast.length == plain.length == len(ids)
    assert fast._ids[: fast.length].tolist() == ids


def test_rows_of_a_batch(folders: dict[str, Path], made: Any) -> None:
    bundle = made(folders["fp32"])
    one = Decoder.open(bundle, 1)
    fast = BatchDecoder(one.session, one.section, prefill_graph=one.prefill_graph)
    plain = BatchDecoder(one.session, one.section)
    rows = [IDS[:1], IDS[3:10], IDS[:100]]
    assert np.abs(fast.prefill(rows, new_tokens=4) - plain.prefill(rows, new_tokens=4)).max() < NEAR
    assert used(one)
    assert np.abs(fast.step([1, 2, 3]) - plain.step([1, 2, 3])).max() < NEAR
    more = [IDS[20:90], [], IDS[:2]]
    assert np.abs(fast.extend(more) - plain.extend(more)).max() < NEAR
    assert fast.lengths == plain.lengths == [72, 8, 103]


def test_the_chunks_of_a_prompt_are_one_prompt(
    folders: dict[str, Path], made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder.open(made(folders["fp32"]), 1)
    pieces = decoder.prefill(IDS).copy()
    monkeypatch.setattr(prefill_module, "PREFILL_CHUNK", 1000)
    np.testing.assert_allclose(decoder.prefill(IDS), pieces, atol=0.05)


def test_the_number_of_new_tokens_decides(folders: dict[str, Path]) -> None:
    decoder = Decoder.open(Bundle.open(folders["fp32"]), 1, cache=False)
    for ids, filled in ((IDS[:64], 0), (IDS[:65], 64), (IDS[:64], 0), (IDS[:70], 69)):
        decoder.prefill(ids)
        assert decoder.filled == filled
    for more, filled in ((IDS[50:60], 0), (IDS[:70], 69)):
        decoder.extend(more)
        assert decoder.filled == filled


def test_it_is_opened_once_for_a_prompt_that_is_long_enough() -> None:
    opened: list[int] = []

    def opening() -> Any:
        opened.append(1)
        binding = SimpleNamespace(bind_cpu_input=lambda name, array: None)
        return SimpleNamespace(io_binding=lambda: binding, run_with_iobinding=lambda bound: None)

    graph = prefill_module.Prefill(opening)
    for count, filled, times in ((64, 0, 0), (65, 64, 1), (30, 0, 1), (300, 299, 1)):
        assert graph.fill(lambda binding: None, np.zeros((1, count), np.int64), 0) == filled
        assert len(opened) == times
    assert graph.runs == 1 + 2


def test_no_memory_for_its_weights_is_an_error_and_no_other_answer(
    folders: dict[str, Path], made: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folders["fp32"]
    few = SimpleNamespace(available=2 * Bundle.open(folder).prefill_bytes)
    with monkeypatch.context() as low:
        low.setattr("psutil.virtual_memory", lambda: few)
        prompt = ["generate", str(folder), "--no-chat", "--max-new-tokens", "1", "--json", "-p"]
        assert run([*prompt, "the river ran on " * 20]) == 6
        assert "--prefill none" in json.loads(capsys.readouterr().out)["error"]["fix"]
        assert run([*prompt, "the river ran on"]) == 0
        assert json.loads(capsys.readouterr().out)["prefill"] == "none"
    made(folder)
    monkeypatch.setattr("psutil.virtual_memory", lambda: few)
    assert run([*prompt, "the river ran on " * 20]) == 0  # mapped from the cache
    assert json.loads(capsys.readouterr().out)["prefill"] == "int8"


def test_memory_that_runs_out_while_they_are_made(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MemoryError("no 7 MB")

    monkeypatch.setattr("edgepress.runtime.prepack.int8_weights.make_int8_weights", full)
    with pytest.raises(OutOfResource, match="no 7 MB"):
        Decoder.open(Bundle.open(folders["fp32"]), 1, cache=False).prefill(IDS)


def changed(folder: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the bundle ``folder`` with another manifest."""
    import shutil

    shutil.copytree(folder, target)
    manifest = read_json(target / "manifest.json")
    change(manifest)
    (target / "manifest.json").unlink()
    write_json(target / "manifest.json", {**manifest, "files": manifest["files"]})
    return target


def test_manifests_that_lie_about_it(folders: dict[str, Path], made: Any, tmp_path: Path) -> None:
    def no_product(manifest: dict[str, Any]) -> None:
        manifest["prefill"]["linears"][0]["of"] = "lm_head"

    def no_file(manifest: dict[str, Any]) -> None:
        manifest["prefill"]["file"] = "other.onnx"

    def outside(manifest: dict[str, Any]) -> None:
        manifest["prefill"]["file"] = "../prefill.onnx"

    bundle = Bundle.open(changed(folders["fp32"], tmp_path / "a", no_product))
    with pytest.raises(BundleError, match="lm_head"):
        prepack.prepack(bundle)
    for index, change in enumerate((no_file, outside)):
        with pytest.raises(BundleError, match="manifest"):
            Bundle.open(changed(folders["fp32"], tmp_path / f"b{index}", change))


def test_its_graph_opens_no_file_of_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    import onnx

    folder = tmp_path / "bundle"
    changed(folders["fp32"], folder, lambda _: None)
    model = onnx.load(folder / "prefill.onnx", load_external_data=False)
    outside = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    next(entry for entry in outside.external_data if entry.key == "location").value = "../secret"
    onnx.save(model, folder / "prefill.onnx")
    manifest = read_json(folder / "manifest.json")
    (folder / "manifest.json").unlink()
    files = hash_tree(folder)
    write_json(folder / "manifest.json", {**manifest, "files": files})
    with pytest.raises(RefusedByPolicy, match="secret"):
        Bundle.open(folder)
