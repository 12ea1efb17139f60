"""Tables on a grid keep it, in every type that a checkpoint stores."""

import pytest
import torch
from edgepress.compress.numbers.grid import fit_grid, quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.numbers.table_rounding import quantize_table, short_scales
from torch import Tensor

SCHEMES = [
    Scheme.parse(name)
    for name in ("W6A16-g16", "W5A16-g32", "W4A16-g32", "W3A16-g32", "W2A16-g16", "W4A16-channel")
]


def drawn(rows: int = 40, wide: int = 64) -> Tensor:
    return torch.randn(rows, wide, generator=torch.Generator().manual_seed(0)) * 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_what_is_on_a_grid_stays_whatever_its_codes_are(scheme: Scheme, dtype: torch.dtype) -> None:
    scale = short_scales(fit_grid(drawn(), scheme, "mse")[0], scheme, dtype)
    draw = torch.Generator().manual_seed(1)
    groups = scheme.groups(64)
    low, high = scheme.code_range
    codes = torch.randint(low, high + 1, (40, groups, 64 // groups), generator=draw)
    # Groups that use few codes, or small ones alone, have a coarser or a finer grid that does as well.
    codes[8:16] = codes[8:16].clamp(-1, 1)
    codes[16:24] = codes[16:24] // 2 * 2
    codes[24] = 0
    table = (codes * scale[..., None]).flatten(1)
    stored = table.to(dtype)
    assert torch.equal(stored.float(), table)
    assert torch.equal(quantize_table(stored.float(), scheme).dequantize(), table)


@pytest.mark.parametrize("scheme", [*SCHEMES, Scheme.parse("W8A16-g32")], ids=str)
def test_any_other_table_is_rounded_to_nearest(scheme: Scheme) -> None:
    found, nearest = quantize_table(drawn(), scheme), quantize(drawn(), scheme)
    assert torch.equal(found.codes, nearest.codes)
    assert torch.equal(found.scale, nearest.scale)


def test_rounding_twice_is_rounding_once() -> None:
    for scheme in SCHEMES:
        once = quantize_table(drawn(), scheme).dequantize()
        assert torch.equal(quantize_table(once, scheme).dequantize(), once)
