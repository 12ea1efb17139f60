"""Products with words of a trellis, and the rotation of their inputs, against the definitions in torch; every
set of instructions gives the same bits.
"""

from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.numbers.input_rotation import rotated
from edgepress.compress.numbers.trellis import levels
from edgepress.export.graph.linear.tiles import TileLayout, pack_tiles
from edgepress.runtime.kernels.library import instructions, library
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import SETS
from .test_operators import Array, Matrix, close, rounded, run
from .test_product_forms import product

pytestmark = pytest.mark.skipif(library() is None, reason="the library of operators was not built here")
SHAPES = [(16, 64, 1), (40, 200, 3), (24, 128, 13), (8, 32, 9), (96, 576, 2), (33, 200, 55), (50, 1104, 17)]
BITS = (2, 3, 4)


def words(rows: int, columns: int, bits: int, group: int = 64, seed: int = 0) -> Matrix:
    """Random symbols and what they mean, one scale for each output."""
    random = np.random.default_rng(seed)
    layout = TileLayout(bits, group, rows, columns, -(-columns // group), False, True, trellis=True)
    symbols = random.integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
    scales = (random.random((rows, 1)) * 0.1).astype(np.float16)
    tiles = pack_tiles(symbols, np.repeat(scales, layout.groups, 1).astype(np.float32), None, layout)
    assert tiles.nbytes == layout.nbytes
    weight = levels(torch.from_numpy(symbols.astype(np.int8)), bits).numpy() * scales.astype(np.float64)
    return Matrix(layout, tiles, weight)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", [16, 48, 64, 128])
def test_a_product_is_that_of_levels_and_rounded_activations(kernels: str, bits: int, group: int) -> None:
    for rows, columns, tokens in SHAPES:
        held = words(rows, columns, bits, group)
        random = np.random.default_rng(1)
        x = random.standard_normal((tokens, columns)).astype(np.float32)
        bias = random.standard_normal(rows).astype(np.float32) if tokens > 1 else None
        added = 0 if bias is None else bias
        for exact, seen in ((0, rounded(x, group)), (1, x)):
            found = product(held, x, bias, exact=exact)
            close(found, seen @ held.weight.T + added, np.abs(seen) @ np.abs(held.weight).T + 8)


@pytest.mark.parametrize("bits", BITS)
def test_rows_of_a_table_are_its_weights(kernels: str, bits: int) -> None:
    held = words(50, 200, bits)
    ids = np.array([[0, 49, 17], [16, 15, 31]], np.int64)
    (found,) = run("QuantizedRows", {"w": held.tiles, "ids": ids}, **held.layout.attributes())
    assert np.array_equal(found, held.weight[ids].astype(np.float32))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_every_set_of_instructions_has_one_result(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 70)), 8 * data.draw(st.integers(1, 40))
    tokens, bits = data.draw(st.integers(1, 40)), data.draw(st.sampled_from(BITS))
    held = words(rows, columns, bits, data.draw(st.sampled_from([16, 32, 64, 128])), tokens)
    x = np.random.default_rng(rows).standard_normal((tokens, columns)).astype(np.float32)
    for exact in (0, 1):
        found = {}
        for name in SETS:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("EDGEPRESS_KERNELS", name)
                if instructions() == name:
                    found[name] = product(held, x, threads=2, exact=exact)
        assert all(np.array_equal(values, found["plain"]) for values in found.values())
        alone = [product(held, x[i : i + 1], exact=exact) for i in range(tokens)]
        assert np.array_equal(np.concatenate(alone), found["plain"])


@pytest.mark.parametrize("tokens", [3, 37])
def test_a_gated_product_joins_its_halves(kernels: str, tokens: int) -> None:
    held = words(96, 64, 3)
    x = np.random.default_rng(2).standard_normal((1, tokens, 64)).astype(np.float32)
    (whole,) = run("QuantizedProduct", {"x": x, "w": held.tiles}, **held.layout.attributes())
    (found,) = run(
        "QuantizedProduct", {"x": x, "w": held.tiles}, threads=2, gated=1, **held.layout.attributes()
    )
    gate, up = whole[..., :48].astype(np.float64), whole[..., 48:]
    expected = gate / (1 + np.exp(-gate)) * up
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("change", [{"bits": 5}, {"bits": 8}, {"zero_points": 1}, {"K": 68}])
def test_words_of_other_forms_are_refused(change: dict[str, Any]) -> None:
    held = words(48, 64, 4)
    x = np.zeros((1, change.get("K", 64)), np.float32)
    with pytest.raises(Exception, match="edgepress: "):
        run("QuantizedProduct", {"x": x, "w": held.tiles}, **{**held.layout.attributes(), **change})


# Powers of two, each of Paley's orders and their products, and numbers that have no Hadamard matrix.
SIZES = (1, 2, 4, 7, 8, 12, 28, 40, 64, 76, 96, 160, 240, 420, 448, 576, 896, 960, 1536, 1680, 2048, 4864)


def turned(x: Array, threads: int = 1) -> Array:
    return run("RotateInputs", {"x": x}, 1, threads, K=x.shape[-1])[0]


@pytest.mark.parametrize("size", SIZES)
def test_inputs_are_rotated_as_weights_were(kernels: str, size: int) -> None:
    x = torch.randn(11, size, generator=torch.Generator().manual_seed(size))
    expected = rotated(x.double()).numpy()
    # A sum of `size` numbers, added in some order.
    bound = 2**-24 * size * float(x.abs().max())
    assert np.abs(turned(x.numpy()) - expected).max() <= bound


def test_rotations_have_one_result() -> None:
    for size in SIZES:
        x = np.random.default_rng(size).standard_normal((2, 9, size)).astype(np.float32)
        found = {}
        for name in SETS:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("EDGEPRESS_KERNELS", name)
                if instructions() == name:
                    found[name] = turned(x, threads=2)
        assert all(np.array_equal(values, found["plain"]) for values in found.values()), size
        assert np.array_equal(turned(x[1, 3]), found["plain"][1, 3])


@pytest.mark.parametrize("size", [0, -1, (1 << 20) + 1, 63])
def test_rotations_of_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(Exception, match="edgepress: "):
        run("RotateInputs", {"x": np.zeros((1, 64), np.float32)}, K=size)
