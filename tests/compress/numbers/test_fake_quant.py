"""Rounded inputs: against loops over all points, and what static scales are made of."""

import math

import pytest
import torch
from edgepress.compress.numbers.fake_quant import input_scale_of, rounding_of
from edgepress.compress.numbers.qtensor import E4M3
from edgepress.compress.numbers.scheme import Format, Scheme

from .test_qtensor import naive


def rows() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 64, generator=generator) * torch.logspace(-3, 2, 6).view(2, 3, 1)
    values[0, 1] = 0
    values[1, 0, 5] = 300.0
    return values


def block_scale(name: Format, absmax: float, unit: float) -> float:
    if absmax == 0:
        return 1.0
    if name == "mxfp4":
        exponent = math.floor(math.log2(absmax))
        return 2.0 ** (exponent - 2 + (absmax / 2.0**exponent >= 1.75))
    stored = torch.tensor(absmax / 6 / unit).clamp(2.0**-9, 448).to(E4M3)
    return float(stored) * unit


@pytest.mark.parametrize(("name", "size"), [("MXFP4", 32), ("NVFP4", 16)])
def test_blocks_are_rounded_with_a_scale_of_their_own(name: str, size: int) -> None:
    scheme, values = Scheme.parse(name), rows()
    unit = input_scale_of(scheme, values.abs().amax((0, 1))) or 0.0
    found = rounding_of(scheme, unit)(values).view(-1, size)
    for block, got in zip(values.view(-1, size), found, strict=True):
        scale = block_scale(scheme.format, float(block.abs().max()), unit)
        want = [naive(2 * float(value) / scale, "mxfp4") / 2 * scale for value in block]
        assert got.tolist() == pytest.approx(want, rel=1e-6, abs=1e-30)


@pytest.mark.parametrize("name", ["FP8_DYNAMIC", "FP8"])
def test_fp8_inputs_have_a_scale_per_token_or_the_one_found_in_calibration(name: str) -> None:
    scheme, values = Scheme.parse(name), rows()
    fixed = input_scale_of(scheme, values.abs().amax((0, 1)))
    found = rounding_of(scheme, fixed)(values).view(-1, 64)
    for row, got in zip(values.view(-1, 64), found, strict=True):
        scale = torch.tensor(fixed) if fixed else row.abs().max() / 448
        if float(scale) == 0:
            assert not bool(got.any())
            continue
        want = [naive(float(value / scale), "fp8") * float(scale) for value in row]
        assert got.tolist() == pytest.approx(want, rel=1e-6)


def test_static_int8_inputs_share_the_scale_found_in_calibration() -> None:
    scheme, values = Scheme.parse("W8A8_STATIC"), rows()
    scale = input_scale_of(scheme, values.abs().amax((0, 1)) / 2) or 0.0
    assert scale == pytest.approx(float(values.abs().max()) / 2 / 127.5)
    found = rounding_of(scheme, scale)(values)
    for value, got in zip(values.flatten().tolist(), found.flatten().tolist(), strict=True):
        assert got == pytest.approx(min(max(round(value / scale), -128), 127) * scale, abs=1.01 * scale)
        if abs(value / scale) < 127:
            assert abs(got - value) <= 0.5001 * scale


def test_static_scales_hold_the_largest_input_and_survive_dead_ones() -> None:
    for name in ("FP8", "NVFP4"):
        scheme = Scheme.parse(name)
        assert input_scale_of(scheme, torch.zeros(4)) == 1.0
        assert input_scale_of(scheme, torch.tensor([1.0, torch.inf])) == 1.0
        scale = input_scale_of(scheme, torch.tensor([0.0, 7.0])) or 0.0
        reach = 448 * scale * (6 if name == "NVFP4" else 1)
        assert 7.0 <= reach * 1.01 < 15
    assert all(input_scale_of(Scheme.parse(name), torch.ones(4)) is None for name in ("MXFP4", "W8A8"))
