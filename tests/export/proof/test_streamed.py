"""The streamed reference computes what the whole model does; its roundings are small and leave no trace."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import GateFailed
from edgepress.export.proof.distances import compare
from edgepress.export.proof.streamed import Change, StreamedModel, in_float64, shaken

from ...rounding import noise

pytestmark = pytest.mark.chain

IDS = np.random.default_rng(0).integers(3, 300, (2, 12))


@pytest.fixture
def streamed(pico_llama: Path) -> StreamedModel:
    return StreamedModel(WeightSource.open(pico_llama), "float32")


def logits(model: StreamedModel, changes: list[Change], *, rounded: bool = False) -> Iterator[np.ndarray]:
    norm = model.source.anatomy.final_norm
    assert norm is not None
    for states in list(model.sweep(model.embedded(IDS, rounded=rounded), changes)):
        normed = model.normed(norm, states.to(torch.float32))
        with model.head(rounded=rounded) as head:
            yield np.stack([head.logits(row).numpy() for row in normed])


def test_it_is_the_whole_model(streamed: StreamedModel, pico_llama: Path, torch_logits: Any) -> None:
    (found,) = logits(streamed, [streamed.as_stored])
    np.testing.assert_allclose(found, torch_logits(load_model(pico_llama), IDS), atol=1e-5)


@pytest.mark.parametrize("scheme", ["W8A8", "W4A16-g32"])
def test_as_stored_is_the_whole_model_as_stored(
    scheme: str, pico_llama: Path, torch_logits: Any, tmp_path: Path
) -> None:
    checkpoint = compress_model(str(pico_llama), scheme=scheme, output=tmp_path / "c")
    model = StreamedModel(WeightSource.open(checkpoint), "float32")
    (found,) = logits(model, [model.as_stored], rounded=True)
    want = torch_logits(load_model(checkpoint, embedding=True), IDS)
    # A flipped rounding of an activation reaches this far, a wrong table or scale farther.
    np.testing.assert_allclose(found, want, atol=1e-5 if scheme.startswith("W4A16") else 1e-2)


@pytest.mark.parametrize(
    "family", ["llama", "mixtral", "gpt_oss", "deepseek_v3", "lfm2", "mamba", "mamba2", "jamba"]
)
def test_roundings_move_logits_a_little_and_leave_no_trace(
    family: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    streamed = StreamedModel(WeightSource.open(make_decoder(tmp_path / "model", family)), "float32")
    (before,) = logits(streamed, [streamed.as_stored])
    exact, first, again, other = logits(streamed, [in_float64, shaken(0), shaken(0), shaken(1)])
    for found in (exact, first, other):
        assert 0 < np.abs(found - before).max() < noise(before)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    (after,) = logits(streamed, [streamed.as_stored])
    assert np.array_equal(after, before)


def test_inputs_in_eight_bits_change_the_logits_a_little(pico_llama: Path, tmp_path: Path) -> None:
    checkpoint = compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=tmp_path / "c")
    model = StreamedModel(WeightSource.open(checkpoint), "float32")
    plain, changed = logits(model, [model.as_stored, model.with_rounded_inputs])
    assert 0 < np.abs(changed - plain).max() < 1


def test_rounded_inputs_are_asked_for_only_when_the_distance_needs_them() -> None:
    reference = np.random.default_rng(2).standard_normal((2, 12, 50)).astype(np.float32)

    def unexpected() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        raise AssertionError("not needed")

    assert compare(reference, reference, reference, IDS % 50, unexpected)["kl_mean"] == 0
    far = reference + 3 * np.random.default_rng(1).standard_normal(reference.shape).astype(np.float32)
    with pytest.raises(GateFailed, match="KL"):
        compare(far, reference, reference, IDS % 50, lambda: reference)
