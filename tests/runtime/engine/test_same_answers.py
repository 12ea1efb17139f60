"""The same question gets the same answer, bit for bit: whatever was asked before, however many threads there
are, and whoever else is in the batch. With edgepress's own operators also however the tokens came in.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.compress.api import compress_model
from edgepress.export.api import export_bundle
from edgepress.runtime.api import TextStream
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine import batch_decoder, decoder
from edgepress.runtime.engine.batch_decoder import BatchDecoder
from edgepress.runtime.engine.decoder import Decoder
from edgepress.runtime.engine.generate import Generation, generate_batch, stream
from edgepress.runtime.engine.sampling import Sampling
from edgepress.runtime.kernels.library import library
from edgepress.runtime.text.tokenizer import Tokenizer

IDS = np.random.default_rng(7).integers(0, 300, 200).tolist()
LENGTHS = (1, 20, 65, 200)

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def folders(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of 4-bit weights by their operators; read only."""
    root = tmp_path_factory.mktemp("answers")
    compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=root / "checkpoint")
    return {
        operators: export_bundle(
            root / "checkpoint", output=root / operators, operators=operators, validate=False
        )
        for operators in ("standard", *([] if library() is None else ["edgepress"]))
    }


@pytest.fixture(params=["standard", "edgepress"])
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    if request.param not in folders:
        pytest.skip("the library of operators was not built here")
    return folders[request.param]


def opened(folder: Path, *, threads: int = 1) -> Decoder:
    return Decoder.open(Bundle.open(folder, weights_later=True), threads)


def said(decoder: Decoder, folder: Path, ids: list[int], **sampling: Any) -> Generation:
    tokenizer, chosen = Tokenizer.open(folder), Sampling(**sampling)
    pieces = stream(decoder, tokenizer, ids, max_new_tokens=8, sampling=chosen)
    return TextStream(pieces, nullcontext()).result


def answer(decoder: Decoder, folder: Path, ids: list[int]) -> tuple[Any, ...]:
    """Logits after a prompt and a step, and the tokens and text of a greedy and of a seeded reply."""
    logits = decoder.prefill(ids).tobytes(), decoder.step(ids[0]).tobytes()
    replies = said(decoder, folder, ids), said(decoder, folder, ids, temperature=1.0, seed=5)
    return (*logits, *((reply.token_ids, reply.text) for reply in replies))


@pytest.mark.parametrize("count", LENGTHS)
def test_on_any_number_of_threads_and_every_time(count: int, folder: Path) -> None:
    ids, first = IDS[:count], opened(folder)
    want = answer(first, folder, ids)
    assert answer(first, folder, ids) == want
    assert answer(opened(folder, threads=2), folder, ids) == want


def test_whatever_was_asked_before(folder: Path) -> None:
    want = {count: answer(opened(folder), folder, IDS[:count]) for count in LENGTHS}
    decoder = opened(folder)
    for count in (200, 20, 65, 1, 200, 20):  # longer ones leave their tokens behind the shorter
        assert answer(decoder, folder, IDS[:count]) == want[count]


def test_whoever_else_is_in_the_batch(folder: Path) -> None:
    decoder = opened(folder)

    def replies(*counts: int) -> list[Generation]:
        batch = BatchDecoder(decoder.session, decoder.section)
        prompts = [IDS[:count] for count in counts]
        return generate_batch(batch, Tokenizer.open(folder), prompts, max_new_tokens=1)

    together = replies(200, 20, 65)
    for count, reply in zip((200, 20, 65), together, strict=True):
        assert reply.token_ids == said(decoder, folder, IDS[:count]).token_ids[:1]
        batch = BatchDecoder(decoder.session, decoder.section)
        first = batch.prefill([IDS[:7], IDS[:count]])[1].tobytes()
        assert first == decoder.prefill(IDS[:count]).tobytes()


@pytest.mark.parametrize("chunk", [1, 7, 64, 199, 4096])
def test_however_the_tokens_come_in(
    chunk: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "edgepress" not in folders:
        pytest.skip("the library of operators was not built here")
    want, model = opened(folders["edgepress"]).prefill(IDS).tobytes(), opened(folders["edgepress"])
    monkeypatch.setattr(decoder, "PREFILL_CHUNK", chunk)
    monkeypatch.setattr(batch_decoder, "PREFILL_CHUNK", chunk)
    assert model.prefill(IDS).tobytes() == want
    model.prefill(IDS[:90])
    model.extend(IDS[90:140])
    assert [model.step(token) for token in IDS[140:]][-1].tobytes() == want
    assert model.logits(np.array([IDS]))[0, -1].tobytes() == want
    batch = BatchDecoder(model.session, model.section)
    assert batch.prefill([IDS[:3], IDS])[1].tobytes() == want
