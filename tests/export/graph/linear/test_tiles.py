"""Storage of weights for edgepress's own products: what a weight takes, and which groups there are."""

import pytest
import torch
from edgepress.compress.numbers.scheme import Scheme
from edgepress.errors import ShapeError
from edgepress.export.graph.linear.tiles import fits_float16, tile_layout


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_weight_takes_its_bits_and_its_share_of_a_scale(bits: int) -> None:
    for half in (True, False):
        for group in (16, 32, 64, 128, 256):
            layout = tile_layout(Scheme.parse(f"W{bits}A16-g{group}"), 4096, 2048, "x", half_scales=half)
            scale = (16 if half else 32) / group
            assert layout.nbytes * 8 / (4096 * 2048) == bits + scale
        layout = tile_layout(Scheme.parse(f"W{bits}A16-channel"), 4096, 2048, "x", half_scales=half)
        assert layout.nbytes * 8 / (4096 * 2048) <= bits + 32 / 2048


def test_any_multiple_of_16_is_a_group_and_any_row_has_a_scale_per_channel() -> None:
    assert tile_layout(Scheme.parse("W3A16-g48"), 7, 96, "x", half_scales=True).group == 48
    assert tile_layout(Scheme.parse("W3A16-g240"), 7, 480, "x", half_scales=True).group == 80
    assert tile_layout(Scheme.parse("W4A16-channel"), 7, 33, "x", half_scales=True).padded == 48
    with pytest.raises(ShapeError, match="x: groups of 24 are no multiple of 16"):
        tile_layout(Scheme.parse("W4A16-g24"), 7, 48, "x", half_scales=True)


def test_scales_take_16_bits_where_no_bit_is_lost() -> None:
    assert fits_float16(torch.tensor([0.5, -(2.0**-24), 65504.0]))
    assert not fits_float16(torch.tensor([0.5, 0.1]))
    assert not fits_float16(torch.tensor([0.5, 65536.0]))
