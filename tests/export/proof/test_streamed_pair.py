"""An encoder–decoder, one block of which is in memory at a time, computes what the whole model does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.token_batch import TokenBatch
from edgepress.export.proof.streamed import in_float64
from edgepress.export.proof.streamed_stacks import StreamedPair

pytestmark = pytest.mark.chain

Make = Callable[..., Path]
START = 0


def batches() -> list[TokenBatch]:
    """Texts of unequal length, and another number of texts."""
    generator = np.random.default_rng(0)
    found = []
    for lengths, written in (((9, 1, 4), 6), ((12, 12), 3)):
        ids, mask = (np.zeros((len(lengths), max(lengths)), np.int64) for _ in range(2))
        for row, length in enumerate(lengths):
            ids[row, :length], mask[row, :length] = generator.integers(3, 30, length), 1
        answer = torch.from_numpy(generator.integers(3, 30, (len(lengths), written)))
        answers = TokenBatch(answer, torch.ones_like(answer))
        found.append(TokenBatch(torch.from_numpy(ids), torch.from_numpy(mask), None, answers))
    return found


def streamed(model: StreamedPair, *, rounded: bool) -> list[np.ndarray]:
    change = [model.as_stored]
    (left,) = model.swept(model.entered(batches(), rounded=rounded), change)
    assert all(parameter.is_meta for parameter in model.skeleton.stacks()[0].parameters())
    with model.head(rounded=rounded) as head:
        return [np.stack([head(row).numpy() for row in states]) for states in left.hidden]


def whole(model: torch.nn.Module) -> list[np.ndarray]:
    found = []
    for batch in batches():
        assert batch.answers is not None
        start = torch.full((len(batch.input_ids), 1), START)
        ids = torch.cat([start, batch.answers.input_ids[:, :-1]], 1)
        given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        with torch.no_grad():
            found.append(model(**given, decoder_input_ids=ids).logits.numpy())
    return found


@pytest.mark.parametrize(
    ("family", "scheme"),
    [("t5", None), ("mt5", "W4A16-g32"), ("bart", "W8A8"), ("marian", None), ("bart", "W4A16-g32")],
)
def test_it_is_the_whole_model_as_stored(
    family: str, scheme: str | None, make_encoder_decoder: Make, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m", family)
    if scheme is not None:
        path = compress_model(str(path), scheme=scheme, output=tmp_path / "c")
    pair = StreamedPair(WeightSource.open(path), "float32")
    wanted = whole(load_model(path, embedding=scheme is not None))
    for found, want in zip(streamed(pair, rounded=scheme is not None), wanted, strict=True):
        # A flipped rounding of an activation reaches this far.
        np.testing.assert_allclose(found, want, atol=1e-2 if scheme == "W8A8" else 2e-5)


def test_other_arithmetic_moves_states_a_little_and_leaves_no_trace(pico_t5: Path) -> None:
    pair = StreamedPair(WeightSource.open(pico_t5), "float32")
    before = streamed(pair, rounded=False)
    entered = pair.entered(batches())
    exact, plain = pair.swept(entered, [in_float64, pair.as_stored])
    for wide, narrow in zip(exact.hidden, plain.hidden, strict=True):
        assert 0 < float((wide - narrow).abs().max()) < 1e-4
    for one, other in zip(streamed(pair, rounded=False), before, strict=True):
        assert np.array_equal(one, other)
