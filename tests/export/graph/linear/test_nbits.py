"""Packed arrays, read back bit by bit, are the codes, scales and zero points that went in."""

import numpy as np
import pytest
import torch
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.errors import ShapeError
from edgepress.export.graph.linear.nbits import (
    NATIVE_BLOCKS,
    layout_of,
    pack_codes,
    pack_scales,
    pack_zero_points,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.chain


def naive_unpack(row: np.ndarray, bits: int, count: int) -> list[int]:
    """The first ``count`` values of a row of bytes, the first in the lowest bits."""
    stream = int.from_bytes(row.tobytes(), "little")
    return [(stream >> (bits * index)) & ((1 << bits) - 1) for index in range(count)]


def random_tensor(scheme: Scheme, out_features: int, in_features: int, seed: int) -> QTensor:
    generator = torch.Generator().manual_seed(seed)
    low, high = scheme.code_range
    groups = scheme.groups(in_features)
    codes = torch.randint(low, high + 1, (out_features, in_features), generator=generator, dtype=torch.int8)
    scale = torch.rand(out_features, groups, generator=generator) + 0.1
    zero = torch.randint(low, high + 1, (out_features, groups), generator=generator, dtype=torch.int8)
    return QTensor(scheme, codes, scale, None if scheme.symmetric else zero)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([2, 3, 4, 8]),
    group=st.sampled_from([None, 16, 32, 48, 64, 80, 96, 128, 160, 256]),
    groups=st.integers(1, 4),
    ragged=st.integers(1, 300),
    symmetric=st.booleans(),
    out_features=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@example(bits=2, group=64, groups=2, ragged=1, symmetric=False, out_features=2, seed=0)
@example(bits=4, group=32, groups=3, ragged=1, symmetric=False, out_features=2, seed=0)
def test_what_is_packed_stands_for_the_same_weights(
    bits: int, group: int | None, groups: int, ragged: int, symmetric: bool, out_features: int, seed: int
) -> None:
    in_features = ragged if group is None else group * groups
    scheme = Scheme(bits=bits, group_size=group, symmetric=symmetric)
    tensor = random_tensor(scheme, out_features, in_features, seed)
    layout = layout_of(scheme, in_features, "layer")
    assert layout.block in NATIVE_BLOCKS[layout.bits]
    codes, scales = pack_codes(tensor, layout), pack_scales(tensor, layout)
    assert codes.shape == (out_features, layout.blocks, layout.blob)
    assert scales.shape == (out_features, layout.blocks)
    weight = np.zeros((out_features, in_features), np.float32)
    for row in range(out_features):
        zeros = [layout.zero] * layout.blocks
        if not symmetric:
            packed = pack_zero_points(tensor, layout)
            assert packed.shape == (out_features, layout.zero_point_bytes)
            zeros = naive_unpack(packed[row], layout.bits, layout.blocks)
        values = naive_unpack(codes[row].ravel(), layout.bits, in_features)
        for column, value in enumerate(values):
            block = column // layout.block
            weight[row, column] = (value - zeros[block]) * scales[row, block]
    np.testing.assert_array_equal(weight, tensor.dequantize().numpy())


@pytest.mark.parametrize(
    ("scheme", "in_features", "bits", "block", "noted"),
    [
        ("W4A16-g64", 576, 4, 64, False),
        ("W2A16-g64", 576, 2, 64, False),
        ("W2A16-g16", 576, 4, 16, True),
        ("W2A16-g256", 512, 2, 128, True),
        ("W3A16-g32", 576, 4, 32, True),
        ("W5A16-g64", 576, 8, 64, True),
        ("W6A16-g32", 576, 8, 32, True),
        ("W4A16-g48", 576, 4, 16, True),
        ("W8A16-channel", 576, 8, 64, False),
        ("W4A16-channel", 100, 4, 64, False),
        ("W2A16-channel", 1024, 2, 128, False),
        ("W8A16-channel", 7, 8, 16, False),
    ],
)
def test_storage_chosen(scheme: str, in_features: int, bits: int, block: int, noted: bool) -> None:
    parsed = Scheme.parse(scheme)
    layout = layout_of(parsed, in_features, "layer")
    assert (layout.bits, layout.block) == (bits, block)
    assert (layout.note(parsed) is not None) is noted


@pytest.mark.parametrize(
    ("scheme", "in_features"), [("W4A16-g64", 100), ("W4A16-g20", 100), ("W2A16-g100", 200)]
)
def test_impossible_groups_are_refused_with_the_layer_named(scheme: str, in_features: int) -> None:
    with pytest.raises(ShapeError, match=r"model\.layers\.3\.mlp\.up_proj"):
        layout_of(Scheme.parse(scheme), in_features, "model.layers.3.mlp.up_proj")
