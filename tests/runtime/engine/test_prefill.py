"""Prompts through the prefill graph: where it is used, where not, and that nothing but speed changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.errors import BundleError, RefusedByPolicy
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine import prefill as prefill_module
from edgepress.runtime.engine.batch_decoder import BatchDecoder
from edgepress.runtime.engine.decoder import Decoder
from edgepress.runtime.prepack import prepack, prepacked
from edgepress.storage import hash_tree, read_json, write_json

IDS = np.random.default_rng(3).integers(0, 300, 120).tolist()
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
    monkeypatch.setattr(prefill_module, "OPEN_FROM", 0)

    def make(folder: Path) -> Bundle:
        bundle = Bundle.open(folder)
        entry = prepack.prepack(bundle)
        assert entry is not None and entry.prefill.is_file()
        return bundle

    return make


def used(decoder: Decoder) -> bool:
    return decoder.prefill_graph is not None and decoder.prefill_graph._session is not None


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
    assert np.abs(fast.extend(IDS[74:]) - plain.extend(IDS[74:])).max() < near
    for ids in (IDS[:80] + IDS[:36], IDS[:80] + IDS[:36] + IDS[5:9]):  # forty tokens more, then four
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
    more = [IDS[20:70], [], IDS[:2]]
    assert np.abs(fast.extend(more) - plain.extend(more)).max() < NEAR
    assert fast.lengths == plain.lengths == [52, 8, 103]


def test_the_chunks_of_a_prompt_are_one_prompt(
    folders: dict[str, Path], made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder.open(made(folders["fp32"]), 1)
    pieces = decoder.prefill(IDS).copy()
    monkeypatch.setattr(prefill_module, "PREFILL_CHUNK", 1000)
    np.testing.assert_allclose(decoder.prefill(IDS), pieces, atol=0.05)


def test_short_prompts_and_other_machines_use_the_models_graph(folders: dict[str, Path], made: Any) -> None:
    bundle = Bundle.open(folders["fp32"])
    without = Decoder.open(bundle, 1)
    found = without.prefill(IDS).copy()
    assert not used(without)
    made(folders["fp32"])
    short = Decoder.open(bundle, 1)
    short.prefill(IDS[:32])
    assert not used(short)
    short.prefill(IDS[:33])
    assert used(short)
    for plain in (Decoder.open(bundle, 1, cache=False), Decoder.open(bundle, 1, prefill=False)):
        assert np.array_equal(plain.prefill(IDS), found)


def test_it_is_opened_when_it_has_become_worth_it(
    folders: dict[str, Path], made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = made(folders["fp32"])
    monkeypatch.setattr(prefill_module, "OPEN_FROM", 100)
    decoder = Decoder.open(bundle, 1)
    for ids, opened in ((IDS[:50], False), (IDS[:20], False), (IDS[:52], True), (IDS[:20], True)):
        decoder.prefill(ids)
        assert used(decoder) == opened
    other = Decoder.open(bundle, 1)
    other.prefill(IDS[:101])
    assert used(other)


@pytest.mark.parametrize(
    ("prompts", "opened"),
    [
        ([40], [False]),  # one prompt may be all
        ([40, 20, 40], [False, True]),  # the second that is long enough
        ([48, 40], [False, True]),  # three runs of 16
        ([64, 40], [True]),  # four
    ],
)
def test_weights_are_packed_for_many_runs_and_second_prompts(
    prompts: list[int], opened: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill_module, "PREFILL_CHUNK", 16)
    monkeypatch.setattr(prefill_module, "OPEN_FROM", 0)
    asked: list[bool] = []

    def opening(packed: bool) -> Any:
        asked.append(packed)
        binding = SimpleNamespace(bind_cpu_input=lambda name, array: None)
        return SimpleNamespace(io_binding=lambda: binding, run_with_iobinding=lambda bound: None)

    graph = prefill_module.Prefill(opening)
    for count in prompts:
        filled = graph.fill(lambda binding: None, np.zeros((1, count + 1), np.int64), 0)
        assert filled == (count if count >= 32 else 0)
    assert asked == opened


def test_no_room_for_its_weights_is_told(
    folders: dict[str, Path], made: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Bundle.open(folders["fp32"])
    enough = SimpleNamespace(available=int(2.3 * bundle.weight_bytes))
    monkeypatch.setattr("psutil.virtual_memory", lambda: enough)
    assert run(["cache", "make", str(bundle.path)]) == 0
    assert "without its prefill graph" in capsys.readouterr().err
    entry = prepacked.find(bundle)
    assert entry is not None and not entry.prefill.exists()
    assert entry.without_prefill is not None and "GB of memory" in entry.without_prefill
    assert run(["cache", "list"]) == 0
    assert "no prefill graph" in capsys.readouterr().out
    decoder = Decoder.open(bundle, 1)
    decoder.prefill(IDS)
    assert not used(decoder)


def test_a_damaged_one_is_dropped(folders: dict[str, Path], made: Any) -> None:
    bundle = made(folders["fp32"])
    entry = prepacked.find(bundle)
    assert entry is not None
    entry.prefill.write_bytes(b"no graph")
    manifest = read_json(entry.path / "manifest.json")
    (entry.path / "manifest.json").unlink()
    write_json(entry.path / "manifest.json", {**manifest, "files": prepacked.describe(entry.path)})
    decoder = Decoder.open(bundle, 1)
    decoder.prefill(IDS)
    assert not used(decoder) and prepacked.find(bundle) is None


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
