"""The same question gets the same answer, bit for bit: whatever the cache of prepacked weights holds, damaged
or not, whatever was asked before, however many threads there are, and whoever else is in the batch.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.compress.api import compress_model
from edgepress.export.api import export_bundle
from edgepress.runtime.api import TextStream
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine import prefill
from edgepress.runtime.engine.batch_decoder import BatchDecoder
from edgepress.runtime.engine.decoder import Decoder
from edgepress.runtime.engine.generate import Generation, generate_batch, stream
from edgepress.runtime.engine.sampling import Sampling
from edgepress.runtime.prepack import prepack, prepacked
from edgepress.runtime.text.tokenizer import Tokenizer

IDS = np.random.default_rng(7).integers(0, 300, 200).tolist()
LENGTHS = (20, 49, 64, 65, 200)
FLIPS = 50

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def folder(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 4-bit weights with a prefill graph; read only."""
    root = tmp_path_factory.mktemp("answers")
    compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=root / "checkpoint")
    return export_bundle(root / "checkpoint", output=root / "bundle", validate=False)


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own; models, blocks and chunks of any size."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepacked, "SMALLEST", 0)
    monkeypatch.setattr(prepacked, "BLOCK", 4096)
    monkeypatch.setattr(prefill, "PREFILL_CHUNK", 64)


def opened(folder: Path, *, threads: int = 1, cache: bool = True) -> Decoder:
    return Decoder.open(Bundle.open(folder, weights_later=True), threads, cache=cache)


def made(folder: Path) -> prepacked.PrepackedEntry:
    entry = prepack.prepack(Bundle.open(folder))
    assert entry is not None
    return entry


def said(decoder: Decoder, folder: Path, ids: list[int], **sampling: Any) -> Generation:
    tokenizer, chosen = Tokenizer.open(folder), Sampling(**sampling)
    return TextStream(stream(decoder, tokenizer, ids, max_new_tokens=8, sampling=chosen)).result


def answer(decoder: Decoder, folder: Path, ids: list[int]) -> tuple[Any, ...]:
    """Logits after a prompt and a step, and the tokens and text of a greedy and of a seeded reply."""
    logits = decoder.prefill(ids).tobytes(), decoder.step(ids[0]).tobytes()
    replies = said(decoder, folder, ids), said(decoder, folder, ids, temperature=1.0, seed=5)
    return (*logits, *((reply.token_ids, reply.text, reply.prefill) for reply in replies))


@pytest.mark.parametrize("count", LENGTHS)
def test_whatever_the_cache_holds(count: int, folder: Path) -> None:
    ids = IDS[:count]
    first = answer(opened(folder), folder, ids)
    assert first[-1][-1] == ("int8" if count > prefill.PREFILL_FROM else "none")
    made(folder)
    fast = opened(folder)
    assert answer(fast, folder, ids) == first
    assert answer(fast, folder, ids) == first
    assert answer(opened(folder, cache=False), folder, ids) == first
    assert answer(opened(folder, threads=2), folder, ids) == first
    shutil.rmtree(prepacked.folder())
    assert answer(opened(folder), folder, ids) == first
    assert answer(opened(folder, threads=2, cache=False), folder, ids) == first


def test_whatever_was_asked_before(folder: Path) -> None:
    want = {count: answer(opened(folder), folder, IDS[:count]) for count in LENGTHS}
    decoder = opened(folder)
    for count in (200, 20, 65, 49, 200, 64, 20):  # longer ones leave their tokens behind the shorter
        assert answer(decoder, folder, IDS[:count]) == want[count]


def test_whoever_else_is_in_the_batch(folder: Path) -> None:
    decoder = opened(folder)

    def replies(*counts: int) -> list[Generation]:
        batch = BatchDecoder(decoder.session, decoder.section, prefill_graph=decoder.prefill_graph)
        prompts = [IDS[:count] for count in counts]
        return generate_batch(batch, Tokenizer.open(folder), prompts, max_new_tokens=1)

    together = replies(200, 20, 65)
    assert [reply.prefill for reply in together] == ["int8", "none", "int8"]
    for count, reply in zip((200, 20, 65), together, strict=True):
        assert reply.token_ids == said(decoder, folder, IDS[:count]).token_ids[:1]
        batch = BatchDecoder(decoder.session, decoder.section, prefill_graph=decoder.prefill_graph)
        first = batch.prefill([IDS[:7], IDS[:count]])[1].tobytes()
        assert first == decoder.prefill(IDS[:count]).tobytes()


def test_prepacked_graphs_are_the_bundles_own(folder: Path) -> None:
    bundle, entry = Bundle.open(folder), made(folder)
    with_copy, without = opened(folder), opened(folder, cache=False)
    for decoder in (with_copy, without):
        decoder.prefill(IDS)
    assert bundle.prefill is not None
    for session, graph in (
        (with_copy.session, entry.graph),
        (with_copy.prefill_graph.session, entry.prefill),  # type: ignore[union-attr]
        (without.session, bundle.graph),
        (without.prefill_graph.session, folder / bundle.prefill.file),  # type: ignore[union-attr]
    ):
        assert session._model_path == str(graph)
    whole = np.array([IDS[:60], IDS[60:120]])
    assert with_copy.logits(whole).tobytes() == without.logits(whole).tobytes()


def test_bytes_that_changed_in_the_cache_change_no_answer(folder: Path, tmp_path: Path) -> None:
    """Single bits at random places of an entry, sizes and times as they were."""
    want, entry, saved = answer(opened(folder), folder, IDS), made(folder), tmp_path / "saved"
    shutil.copytree(entry.path, saved)
    files = [path.name for path in saved.iterdir() if path.name != "manifest.json"]
    assert {"model.onnx.data", "prefill.onnx.data"} < set(files)
    rng, found = np.random.default_rng(27), 0
    for _ in range(FLIPS):
        flipped(entry.path / str(rng.choice(files)), rng)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert answer(opened(folder), folder, IDS) == want
        found += [warning.category for warning in told] == [prepacked.DamagedCopy]
        assert not entry.path.exists()
        shutil.copytree(saved, entry.path)
    assert found == FLIPS
    assert answer(opened(folder), folder, IDS) == want and entry.path.exists()


def flipped(path: Path, rng: np.random.Generator) -> None:
    status, raw = path.stat(), bytearray(path.read_bytes())
    raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(raw)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def test_a_copy_of_another_description_is_not_used(folder: Path, tmp_path: Path) -> None:
    """What the int8 weights are made of stands in the manifest, not in a graph."""
    from edgepress.storage import read_json, write_json

    other = tmp_path / "other"
    shutil.copytree(folder, other)
    manifest = read_json(other / "manifest.json")
    first, *rest = manifest["prefill"]["linears"]
    manifest["prefill"]["linears"] = [{**first, "norm": ""}, *rest]
    write_json(other / "manifest.json", manifest)
    assert prepacked.entry_path(Bundle.open(other)) != prepacked.entry_path(Bundle.open(folder))
    # A key that is not known decides nothing, whatever it says.
    manifest = {**read_json(folder / "manifest.json")}
    manifest["prefill"]["note"] = "\ud800"
    (other / "manifest.json").write_text(json.dumps(manifest), encoding="ascii")
    assert prepacked.entry_path(Bundle.open(other)) == prepacked.entry_path(Bundle.open(folder))
