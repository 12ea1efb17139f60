"""Scale refit and coordinate descent: against brute force, and that nothing they do makes a layer worse."""

import itertools

import pytest
import torch
from edgepress.compress.numbers.grid import encode, quantize
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.numbers.table_rounding import short_scales
from edgepress.compress.solve.refinement import descend, refine, refit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

SCHEMES = ["W2A16-g16", "W3A16_ASYM-g16", "W4A16-g32", "W4A16_ASYM-channel", "W8A16-g16"]


def problem(seed: int, rows: int = 8, channels: int = 64) -> tuple[Tensor, Tensor]:
    """A weight and a positive definite Hessian of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4 * channels, channels, generator=generator)
    inputs = inputs @ torch.randn(channels, channels, generator=generator)
    return torch.randn(rows, channels, generator=generator), inputs.T @ inputs / len(inputs)


def losses(target: Tensor, hessian: Tensor, tensor: QTensor) -> Tensor:
    """The objective of each row ``[out]``, float64."""
    change = (tensor.dequantize() - target).double()
    return ((change @ hessian.double()) * change).sum(1)


def no_worse(after: Tensor, before: Tensor) -> bool:
    return bool((after <= before * (1 + 1e-5) + 1e-9).all())


@pytest.mark.chain
@pytest.mark.parametrize("name", SCHEMES)
def test_descend_equals_a_loop_over_single_codes(name: str) -> None:
    target, hessian = problem(0, rows=3)
    scheme = Scheme.parse(name)
    start = quantize(target, scheme)
    lowest, highest = scheme.code_range
    # Sums of 64 products in float32 are good to 64 × 6e-8 of the loss: codes that lie nearer are equal.
    slack = 1e-5 * losses(target, hessian, start)
    for block in (1, 16, 100):
        got = descend(target, hessian, start, block=block)
        for row, column in itertools.product(range(3), range(64)):
            # Each code given those before it as they became, and those behind it as they were.
            codes = torch.cat([got.codes[row, :column], start.codes[row, column:]])
            trials = codes.repeat(highest - lowest + 1, 1)
            trials[:, column] = torch.arange(lowest, highest + 1)
            zero = None if start.zero_point is None else start.zero_point[row].expand(len(trials), -1)
            tensor = QTensor(scheme, trials, start.scale[row].expand(len(trials), -1), zero)
            by_code = losses(target[row], hessian, tensor)
            assert by_code[int(got.codes[row, column]) - lowest] <= by_code.min() + slack[row]


@pytest.mark.parametrize("name", SCHEMES)
def test_refit_equals_least_squares_on_the_data(name: str) -> None:
    target, hessian = problem(1)
    start = quantize(target, Scheme.parse(name))
    got = refit(target, hessian, start)
    root = torch.linalg.cholesky(hessian.double())
    groups = start.scale.shape[1]
    steps = start.codes.double().view(8, groups, -1)
    if start.zero_point is not None:
        steps = steps - start.zero_point.double().unsqueeze(-1)
    for row in range(8):
        parts = torch.block_diag(*steps[row].unsqueeze(1)).view(groups, 64)
        expected = torch.linalg.lstsq(root.T @ parts.T, root.T @ target[row].double()).solution
        kept = torch.equal(got.scale[row], start.scale[row])
        assert kept or torch.allclose(got.scale[row].double(), expected, rtol=5e-3, atol=2e-3)
    assert torch.equal(got.codes, start.codes)
    assert float(losses(target, hessian, got).sum()) < float(losses(target, hessian, start).sum())


@pytest.mark.chain
@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(SCHEMES), st.floats(1e-4, 1e4), st.booleans())
def test_no_step_makes_a_row_worse(seed: int, name: str, size: float, masked: bool) -> None:
    target, hessian = problem(seed)
    target = target * size
    mask = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed)) > 0.4 if masked else None
    target = target if mask is None else target * mask
    tensor = quantize(target, Scheme.parse(name), mask=mask)
    sides = tensor.scale.sign()
    for step in ("refit", "descend", "refit", "descend"):
        before = losses(target, hessian, tensor)
        tensor = (
            refit(target, hessian, tensor) if step == "refit" else descend(target, hessian, tensor, mask=mask)
        )
        assert no_worse(losses(target, hessian, tensor), before), step
        assert torch.equal(tensor.scale.sign(), sides)  # no scale crosses zero
    if mask is not None:
        assert bool((tensor.dequantize()[~mask] == 0).all())


@pytest.mark.parametrize("name", SCHEMES)
def test_refining_rounded_weights_gains_what_correlation_allows(name: str) -> None:
    target, hessian = problem(2, rows=32)
    start = quantize(target, Scheme.parse(name), "mse", hessian.diagonal())
    refined = refine(target, hessian, start, 4)
    assert float(losses(target, hessian, refined).sum()) < 0.8 * float(losses(target, hessian, start).sum())


def test_an_all_zero_row_and_group_stay_as_they_are() -> None:
    target, hessian = problem(3)
    target[2] = 0
    target[4, :16] = 0
    start = quantize(target, Scheme.parse("W4A16-g16"))
    refined = refine(target, hessian, start, 3)
    assert bool((refined.dequantize()[2] == 0).all())
    assert bool(torch.isfinite(refined.scale).all())


def test_scales_are_what_float16_stores() -> None:
    target, hessian = problem(4)
    refined = refine(target, hessian, quantize(target, Scheme.parse("W3A16-g16")), 2)
    assert torch.equal(refined.scale, refined.scale.half().float())


@pytest.mark.parametrize("name", ["W2A16-g16", "W3A16-g16", "W4A16-g32"])
def test_scales_that_are_short_stay_so_and_no_row_gets_worse(name: str) -> None:
    target, hessian = problem(6, rows=32)
    scheme = Scheme.parse(name)

    def short(scale: Tensor) -> Tensor:
        return short_scales(scale, scheme, torch.bfloat16)

    start = quantize(target, scheme, "mse", hessian.diagonal())
    start = encode(target, short(start.scale), None, scheme)
    moved = descend(target, hessian, start)
    for refined in (refit(target, hessian, moved, short), refine(target, hessian, moved, 2, short=short)):
        assert torch.equal(refined.scale, short(refined.scale))
        assert no_worse(losses(target, hessian, refined), losses(target, hessian, moved))
        assert not torch.equal(refined.scale, start.scale)


def test_no_round_changes_nothing() -> None:
    target, hessian = problem(5)
    start = quantize(target, Scheme.parse("W4A16-g16"))
    assert refine(target, hessian, start, 0) is start
