"""Float formats: against brute force over all points, the library's own numbers, and what always holds."""

from itertools import pairwise

import pytest
import torch
from compressed_tensors.quantization.quant_args import FP4_E2M1_DATA
from compressed_tensors.quantization.utils import generate_mx_scales
from edgepress.compress.model.checkpoint.packed_codes import pack_e2m1, unpack_e2m1
from edgepress.compress.numbers.grid import fit_grid, quantize, storable
from edgepress.compress.numbers.qtensor import E4M3, block_scales, nearest, power_of_two, unit_of
from edgepress.compress.numbers.scheme import Format, Scheme
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
SCHEMES = ["FP8_DYNAMIC", "NVFP4A16", "MXFP4A16"]


def points(number_format: Format) -> list[float]:
    """All points of a format in units of codes, the even mantissas first."""
    if number_format == "fp8":
        every = torch.arange(256, dtype=torch.uint8).view(E4M3).to(torch.float32)
        return sorted((v for i, v in enumerate(every.tolist()) if v == v), key=lambda v: v)
    return sorted({sign * 2 * v for v in E2M1 for sign in (1, -1)})


def even(value: float, number_format: Format) -> bool:
    """Whether the last bit of the mantissa is 0."""
    if number_format == "fp8":
        return int(torch.tensor(value).to(E4M3).view(torch.uint8)) % 2 == 0
    return E2M1.index(abs(value) / 2) % 2 == 0


def naive(value: float, number_format: Format) -> float:
    ranked = sorted(
        points(number_format), key=lambda point: (abs(point - value), not even(point, number_format))
    )
    return ranked[0]


@pytest.mark.chain
@pytest.mark.parametrize("number_format", ["fp8", "mxfp4", "nvfp4"])
def test_nearest_is_the_nearest_point_and_ties_go_to_the_even_one(number_format: Format) -> None:
    ordered = points(number_format)
    between = [(low + high) / 2 for low, high in pairwise(ordered)]
    values = ordered + between + (torch.randn(200, generator=torch.Generator().manual_seed(0)) * 9).tolist()
    values += [1e4, -1e4, 500.0]
    found = nearest(torch.tensor(values), number_format)
    assert found.tolist() == [naive(value, number_format) for value in values]


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_scales_of_mx_blocks_are_the_librarys(absmax: float) -> None:
    value = torch.tensor([absmax])
    assert torch.equal(power_of_two(value), 2.0 ** (generate_mx_scales(value) - 127))
    assert 3.5 <= absmax / float(power_of_two(value)) < 7


@given(st.floats(2.0**-60, 2.0**60, width=32), st.integers(0, 1000))
def test_block_scales_of_nvfp4_are_e4m3_in_a_unit_that_holds_the_largest(largest: float, seed: int) -> None:
    unit = unit_of(largest)
    assert unit == 2.0 ** round(torch.log2(torch.tensor(unit)).item()) and 224 < largest / unit <= 448
    scale = torch.rand(50, generator=torch.Generator().manual_seed(seed)) * largest
    stored = block_scales(scale, unit)
    assert torch.equal((stored / unit).to(E4M3).to(torch.float32) * unit, stored)
    assert bool((stored > 0).all()) and float(stored.max()) <= 1.07 * largest
    assert bool(((stored - scale).abs() <= torch.maximum(scale / 16, torch.tensor(unit * 2.0**-9))).all())


@pytest.mark.chain
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 1000))
def test_packing_of_e2m1_is_the_librarys_and_round_trips(rows: int, pairs: int, seed: int) -> None:
    from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8

    chosen = torch.randint(0, 16, (rows, 2 * pairs), generator=torch.Generator().manual_seed(seed))
    codes = (torch.tensor(E2M1)[chosen % 8] * torch.where(chosen < 8, 2, -2)).to(torch.int8)
    packed = pack_e2m1(codes)
    assert torch.equal(packed, pack_fp4_to_uint8(codes.to(torch.float32).abs() / 2 * codes.sign()))
    assert torch.equal(unpack_e2m1(packed), codes)


def problem(seed: int, size: float = 0.03) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(-1, 1, 24).unsqueeze(1)
    return torch.randn(24, 96, generator=generator) * spread * size


@pytest.mark.chain
@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("search", ["mse", "minmax"])
def test_codes_are_the_nearest_points_of_each_group(name: str, search: str) -> None:
    scheme, weight = Scheme.parse(name), problem(0)
    tensor = quantize(weight, scheme, search)
    size = scheme.group_size or 96
    for row in range(0, 24, 5):
        for column in range(0, 96, 7):
            scale = float(tensor.scale[row, column // size])
            want = naive(float(weight[row, column] / scale), scheme.format)
            assert float(tensor.codes[row, column].to(torch.float32)) == want
    assert torch.equal(storable(tensor.scale, scheme, float(weight.abs().max()) / 12), tensor.scale)


@pytest.mark.parametrize("name", SCHEMES)
def test_search_never_loses_to_the_plain_rule_and_pruned_weights_stay_zero(name: str) -> None:
    scheme, weight = Scheme.parse(name), problem(1)
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) > 0.5
    weight = weight * mask
    best, plain = (quantize(weight, scheme, search, mask=mask) for search in ("mse", "minmax"))
    errors = [float((tensor.dequantize() - weight).square().sum()) for tensor in (best, plain)]
    assert errors[0] <= errors[1] < 0.02 * float(weight.square().sum())
    assert bool((best.dequantize()[~mask] == 0).all())


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_tiny_and_huge_weights_keep_their_relative_error(name: str, size: float) -> None:
    scheme, weight = Scheme.parse(name), problem(3, size)
    error = (quantize(weight, scheme).dequantize() - weight).square().sum() / weight.square().sum()
    assert float(error) < 0.02
    zero = quantize(torch.zeros(4, 96), scheme)
    assert bool((zero.dequantize() == 0).all()) and bool((zero.scale > 0).all())


def test_every_weight_of_a_four_bit_float_is_exact_in_bfloat16() -> None:
    for name in ("NVFP4A16", "MXFP4A16"):
        weight = quantize(problem(4), Scheme.parse(name)).dequantize()
        assert torch.equal(weight.to(torch.bfloat16).to(torch.float32), weight)


def test_matrices_that_are_joined_count_their_scales_in_one_unit() -> None:
    scheme, small = Scheme.parse("NVFP4A16"), problem(5, 1e-4)
    alone, joined = (fit_grid(small, scheme, "minmax", absmax=top)[0] for top in (None, 1000.0))
    assert not torch.equal(alone, joined)
    unit = unit_of(1000.0 / 6)
    assert torch.equal((2 * joined / unit).to(E4M3).to(torch.float32) * unit, 2 * joined)


def test_names_of_formats_round_trip_and_impossible_ones_are_refused() -> None:
    for name in ("FP8_DYNAMIC", "FP8", "NVFP4", "NVFP4A16", "MXFP4", "MXFP4A16"):
        assert Scheme.parse(name).name == name
    assert Scheme.parse("NVFP4A16").bits_per_weight(4096) == 4.5
    assert Scheme.parse("MXFP4").bits_per_weight(4096) == 4.25
    for wrong in (
        {"bits": 4, "group_size": 64, "format": "nvfp4"},
        {"bits": 8, "group_size": None, "format": "fp8"},
        {"bits": 4, "group_size": 32, "format": "mxfp4", "symmetric": False},
        {"bits": 8, "group_size": 64, "activations": "tensor"},
    ):
        with pytest.raises(ValueError, match=r"activations|groups"):
            Scheme.model_validate(wrong)


def test_largest_point_is_the_librarys() -> None:
    assert max(E2M1) == FP4_E2M1_DATA.max
