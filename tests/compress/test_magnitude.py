"""Magnitude pruning: exact counts, against a sort in plain Python, and zeros that survive quantization."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.passes.magnitude import smallest_mask
from edgepress.compress.qtensor import QTensor
from edgepress.compress.weights import WeightSource
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 1000), st.floats(0, 0.99))
def test_drops_exactly_the_smallest(seed: int, sparsity: float) -> None:
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    mask = smallest_mask(weight, sparsity)
    ranked = sorted(range(48), key=lambda index: (abs(weight.flatten()[index].item()), index))
    dropped = set(ranked[: round(sparsity * 48)])
    assert {index for index in range(48) if not mask.flatten()[index]} == dropped


@pytest.mark.parametrize(
    "second", ["{pass: rtn, scheme: W4A16-g32}", "{pass: w8a8}", "{pass: gptq, scheme: W3A16_ASYM-g16}"]
)
def test_zeros_survive_quantization(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, second: str
) -> None:
    model = make_decoder(tmp_path / "m", num_hidden_layers=1)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"passes:\n  - {{pass: magnitude, sparsity: 0.6}}\n  - {second}\n")
    out = compress_model(
        str(model),
        recipe=str(recipe),
        output=tmp_path / "o",
        calibration=str(pico_text),
        samples=8,
        length=32,
    )
    dense, sparse = WeightSource.open(model), WeightSource.open(out)
    for linear in dense.anatomy.linears():
        mask = smallest_mask(dense.dense(linear.name), 0.6)
        weight = sparse.linear(linear.name)
        assert isinstance(weight, QTensor)
        assert bool((weight.dequantize()[~mask] == 0).all())


def test_pruning_alone_saves_a_dense_checkpoint(pico_llama: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: magnitude, sparsity: 0.5, targets: [gate, up, down]}]\n")
    out = compress_model(str(pico_llama), recipe=str(recipe), output=tmp_path / "o")
    source = WeightSource.open(out)
    assert source.schemes == {} and "quantization_config" not in source.reader.config
    for linear in source.anatomy.linears():
        zeros = float((source.dense(linear.name) == 0).float().mean())
        assert zeros == pytest.approx(0.5 if linear.role in ("gate", "up", "down") else 0.0, abs=1e-3)
