"""The grid: against loops over single groups, and the properties that every quantizer relies on."""

import pytest
import torch
from edgepress.compress.numbers.grid import fit_grid, quantize, storable
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.recipe import parse
from edgepress.errors import RecipeError, ShapeError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

SCHEMES = ["W2A16-g16", "W3A16_ASYM-g32", "W4A16-g32", "W4A16_ASYM-g16", "W8A16-channel", "W8A8"]


def random_weight(seed: int, out_features: int = 12, in_features: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out_features, in_features, generator=generator)


def naive_minmax(weight: Tensor, scheme: Scheme) -> Tensor:
    """Round to nearest, one group and one weight at a time."""
    size = scheme.group_size or weight.shape[1]
    lowest, highest = scheme.code_range
    result = torch.empty_like(weight)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], size):
            group = weight[row, start : start + size]
            if scheme.symmetric:
                scale = 2 * group.abs().max() / (highest - lowest)
                zero = torch.tensor(0.0)
            else:
                low, high = min(float(group.min()), 0.0), max(float(group.max()), 0.0)
                scale = torch.tensor((high - low) / (highest - lowest))
                zero = (lowest - low / storable(scale)).round().clamp(lowest, highest)
            scale = storable(scale)
            for column, value in enumerate(group):
                code = ((value / scale).round() + zero).clamp(lowest, highest)
                result[row, start + column] = (code - zero) * scale
    return result


@pytest.mark.parametrize("name", SCHEMES)
def test_minmax_equals_the_naive_loop(name: str) -> None:
    scheme, weight = Scheme.parse(name), random_weight(0)
    assert torch.allclose(
        quantize(weight, scheme, "minmax").dequantize(), naive_minmax(weight, scheme), atol=1e-6
    )


@pytest.mark.parametrize("name", SCHEMES)
def test_mse_search_beats_minmax_on_its_objective(name: str) -> None:
    scheme, weight = Scheme.parse(name), random_weight(1, 32, 128)
    importance = torch.rand(128, generator=torch.Generator().manual_seed(2)) + 0.01

    def loss(tensor: QTensor) -> float:
        return float(((tensor.dequantize() - weight).square() * importance).sum())

    plain, searched = quantize(weight, scheme, "minmax"), quantize(weight, scheme, "mse", importance)
    assert loss(searched) <= loss(plain)
    if scheme.bits <= 4:
        assert loss(searched) < 0.99 * loss(plain)


@pytest.mark.parametrize("name", ["W2A16-g16", "W3A16-g32", "W4A16-g32"])
def test_mse_looks_at_the_side_of_the_largest_weight(name: str) -> None:
    """Naive: a group at a time, all spans; the scale is negative where the largest weight is positive."""
    scheme, weight = Scheme.parse(name), random_weight(4, 6)
    lowest, highest = scheme.code_range
    factors = (
        [1.07 - 0.03 * i for i in range(17)] if scheme.bits == 4 else [1.1 - 0.04 * i for i in range(20)]
    )
    tensor = quantize(weight, scheme, "mse")
    values = tensor.dequantize().view(*tensor.scale.shape, -1)
    for row in range(len(weight)):
        for index, group in enumerate(weight[row].view(tensor.scale.shape[1], -1)):
            side = -1.0 if group.max() > -group.min() else 1.0
            sides = [side, -side] if scheme.bits == 2 else [side]
            tried = [1.0, *(factor * sign for sign in sides for factor in factors)]
            scales = storable(
                torch.tensor([2 * factor / (highest - lowest) for factor in tried]) * group.abs().max()
            )
            errors = [
                float(((group / scale).round().clamp(lowest, highest) * scale - group).square().sum())
                for scale in scales
            ]
            found = float((values[row, index] - group).square().sum())
            assert found == pytest.approx(min(errors), rel=1e-5)
    assert bool((tensor.scale < 0).any()) and bool((tensor.scale > 0).any())


def naive_percentile(values: Tensor, percent: float) -> float:
    """The value below which ``percent`` of ``values`` lie, between two neighbours in their order."""
    ranked = sorted(values.tolist())
    place = percent / 100 * (len(ranked) - 1)
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])


@pytest.mark.parametrize(("search", "percent"), [("percentile", 99.0), ("percentile-87.5", 87.5)])
@pytest.mark.parametrize("name", ["W4A16-g32", "W4A16_ASYM-g32"])
def test_percentile_spans_that_share_of_a_group(name: str, search: str, percent: float) -> None:
    scheme, weight = Scheme.parse(name), random_weight(8)
    scale, zero = fit_grid(weight, scheme, search)
    for row in range(12):
        for group in range(2):
            values = weight[row, 32 * group : 32 * group + 32]
            high = naive_percentile(values.abs(), percent)
            low = -high
            if zero is not None:
                low = min(naive_percentile(values, (100 - percent) / 2), 0.0)
                high = max(naive_percentile(values, (100 + percent) / 2), 0.0)
                expected = round(-8 - low / float(scale[row, group]))
                assert abs(float(zero[row, group]) - expected) <= 1
            assert float(scale[row, group]) == pytest.approx((high - low) / 15, rel=1e-3)


@pytest.mark.parametrize("name", SCHEMES)
def test_all_of_a_group_is_minmax(name: str) -> None:
    weight, scheme = random_weight(9), Scheme.parse(name)
    plain, spanned = quantize(weight, scheme, "minmax"), quantize(weight, scheme, "percentile-100")
    assert torch.equal(plain.codes, spanned.codes) and torch.equal(plain.scale, spanned.scale)


@pytest.mark.parametrize("search", ["percentile-101", "percentile-", "quantile", "mse "])
def test_an_unknown_search_is_refused(search: str) -> None:
    with pytest.raises(RecipeError, match="search"):
        parse({"passes": [{"pass": "rtn", "scheme": "W4A16-g32", "search": search}]}, "here")


@pytest.mark.chain
@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(SCHEMES),
    st.sampled_from(["minmax", "mse", "percentile"]),
    st.floats(1e-6, 1e6),
)
def test_codes_stay_in_range_and_values_finite(seed: int, name: str, search: str, size: float) -> None:
    scheme = Scheme.parse(name)
    tensor = quantize(random_weight(seed) * size, scheme, search)
    lowest, highest = scheme.code_range
    assert int(tensor.codes.min()) >= lowest and int(tensor.codes.max()) <= highest
    assert bool((tensor.scale != 0).all()) and bool(torch.isfinite(tensor.dequantize()).all())
    if search != "mse" or scheme.bits == 8 or not scheme.symmetric:
        assert bool((tensor.scale > 0).all())


@pytest.mark.chain
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(SCHEMES))
def test_requantizing_on_the_grid_is_exact(seed: int, name: str) -> None:
    """Values on a grid round to themselves: codes → values → codes is the identity."""
    scheme = Scheme.parse(name)
    first = quantize(random_weight(seed), scheme)
    size = 64 // first.scale.shape[1]
    scale = first.scale.repeat_interleave(size, 1)
    zero = 0 if first.zero_point is None else first.zero_point.repeat_interleave(size, 1)
    assert torch.equal((first.dequantize() / scale).round() + zero, first.codes.to(torch.float32))


@pytest.mark.parametrize("name", SCHEMES)
def test_masked_weights_become_exactly_zero(name: str) -> None:
    weight = random_weight(3)
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(4)) > 0.5
    tensor = quantize(weight, Scheme.parse(name), mask=mask)
    assert bool((tensor.dequantize()[~mask] == 0).all())
    assert bool((tensor.dequantize()[mask] != 0).any())


@pytest.mark.parametrize("name", SCHEMES)
def test_an_all_zero_group_is_exact(name: str) -> None:
    weight = random_weight(5)
    weight[3] = 0
    assert bool((quantize(weight, Scheme.parse(name)).dequantize()[3] == 0).all())


def test_scales_are_what_float16_stores_where_it_can() -> None:
    scale, _ = fit_grid(random_weight(6), Scheme.parse("W4A16-g16"))
    assert torch.equal(scale, scale.half().float())
    tiny, _ = fit_grid(random_weight(6) * 1e-6, Scheme.parse("W4A16-g16"))
    assert bool((tiny != 0).all())


def test_chunked_search_does_not_depend_on_the_other_rows() -> None:
    weight, scheme = random_weight(7, 700, 256), Scheme.parse("W3A16-g32")
    whole, _ = fit_grid(weight, scheme)
    part, _ = fit_grid(weight[500:], scheme)
    assert torch.equal(whole[500:], part)


def test_qtensor_refuses_what_does_not_fit() -> None:
    scheme = Scheme.parse("W4A16-g32")
    codes = torch.zeros(4, 64, dtype=torch.int8)
    with pytest.raises(ShapeError):
        QTensor(scheme, codes, torch.ones(4, 1))
    with pytest.raises(ShapeError):
        QTensor(scheme, codes, torch.ones(4, 2), torch.zeros(4, 2, dtype=torch.int8))
