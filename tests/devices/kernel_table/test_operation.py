"""Bytes and multiply-adds of operations, against the layouts that are exported and against counting."""

from itertools import product

import pytest
from edgepress.devices.kernel_table.operation import (
    cached_attention,
    encoder_attention,
    quantized_product,
    tile_bytes,
)
from edgepress.export.graph.linear.tiles import TileLayout


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_tiles_have_the_bytes_of_the_exporter(bits: int) -> None:
    for k, n, group, shared, points, wide in product(
        (48, 576), (17, 960), (32, 64), (1, 3), (False, True), (False, True)
    ):
        layout = TileLayout(bits, group, n, k, shared, points, not wide)
        found = tile_bytes(bits, k, n, group, shared, zero_points=points, wide=wide)
        assert found == layout.nbytes


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_words_of_a_trellis_have_the_bytes_of_the_exporter(bits: int) -> None:
    for k, n in product((48, 576), (17, 960)):
        layout = TileLayout(bits, 16, n, k, -(-k // 16), False, True, trellis=True)
        assert tile_bytes(bits, k, n, 16, -(-k // 16), trellis=True) == layout.nbytes
    assert quantized_product(1, 64, 64, bits, group=16, shared=4, trellis=True).features == ("trellis",)


def counted(rows: int, past: int, heads: int, dim: int, window: int) -> int:
    """Multiply-adds of causal attention, pair by pair: scores and sums."""
    pairs = 0
    for row in range(rows):
        last = past + row
        first = 0 if window < 0 else max(0, last - window + 1)
        pairs += last - first + 1
    return 2 * pairs * heads * dim


@pytest.mark.parametrize("rows", [1, 3, 16, 100])
@pytest.mark.parametrize("past", [0, 1, 250])
def test_attention_computes_every_pair_once(rows: int, past: int) -> None:
    found = cached_attention("CachedAttention", "float32", rows, past, 6, 2, 32)
    assert found.work == counted(rows, past, 6, 32, -1)
    assert found.read == 2 * 2 * 32 * 4 * (past + rows)


def test_a_window_bounds_what_one_token_sees() -> None:
    found = cached_attention("CachedAttention", "int8", 1, 500, 6, 2, 32, window=64)
    assert (found.work, found.read) == (counted(1, 500, 6, 32, 64), 2 * 2 * 32 * 64)


def test_texts_see_themselves_alone() -> None:
    assert encoder_attention(64, 16, 4, 8, exact=True).work == 2 * 4 * 16 * 16 * 4 * 8


def test_features_are_named_where_they_differ_from_the_plain_product() -> None:
    assert quantized_product(1, 64, 64, 4).features == ()
    found = quantized_product(1, 64, 64, 4, group=32, zero_points=True, gated=True)
    assert found.features == ("group 32", "zero points", "gated")
    assert quantized_product(1, 64, 64, 4, shared=4).features == ("channel",)
