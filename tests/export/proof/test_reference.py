"""Bounds that follow a model's own sensitivity: asked for only when needed, and never a free pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import GateFailed
from edgepress.export.proof.distances import compare
from edgepress.export.proof.reference import (
    float32_rounding,
    logits,
    precise_logits,
    shaken_logits,
    with_rounded_activations,
)


def tokens() -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.random.default_rng(0).integers(3, 300, (2, 12))


def test_float64_logits_are_close_and_leave_the_model_as_it_was(pico_llama: Path) -> None:
    model, ids = load_model(pico_llama), tokens()
    before = logits(model, ids)
    precise = precise_logits(model, ids)
    assert 0 < np.abs(precise - before).max() < 1e-3
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert np.array_equal(logits(model, ids), before)


@pytest.mark.chain
def test_a_shaken_last_digit_moves_logits_a_little_and_leaves_the_model_as_it_was(pico_llama: Path) -> None:
    model, ids = load_model(pico_llama), tokens()
    before = logits(model, ids)
    shaken = [shaken_logits(model, ids, seed) for seed in (0, 0, 1)]
    assert np.array_equal(shaken[0], shaken[1]) and not np.array_equal(shaken[0], shaken[2])
    sizes = [float(np.abs(found - before).max()) for found in shaken]
    assert all(0 < size < 1e-4 for size in sizes)
    assert np.array_equal(logits(model, ids), before)
    rounding = float32_rounding(model, ids, before)
    assert max(sizes) <= rounding < 1e-4


def test_rounded_inputs_are_asked_for_only_when_the_distance_needs_them(pico_llama: Path) -> None:
    model, ids = load_model(pico_llama), tokens()
    reference = logits(model, ids)

    def unexpected() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        raise AssertionError("not needed")

    assert compare(reference, reference, reference, ids, unexpected)["kl_mean"] == 0
    far = reference + 3 * np.random.default_rng(1).standard_normal(reference.shape).astype(np.float32)
    with pytest.raises(GateFailed, match="KL"):
        compare(far, reference, reference, ids, lambda: reference)


def test_rounding_the_inputs_changes_the_logits_a_little(pico_llama: Path) -> None:
    model, ids = load_model(pico_llama), tokens()
    reference = logits(model, ids)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    changed = logits(with_rounded_activations(model, [name for name in names if name != "lm_head"]), ids)
    assert 0 < np.abs(changed - reference).max() < 1
