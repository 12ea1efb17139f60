"""Levels of symbols against the definition, bit by bit; the search against all words that there are."""

import numpy as np
import pytest
import torch
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.input_rotation import rotated
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.numbers.trellis import (
    TABLES,
    UNITS,
    dequantized,
    levels,
    nearest_symbols,
    window_levels,
)
from edgepress.errors import ShapeError
from edgepress.runtime.kernels.library import library
from edgepress.runtime.kernels.trellis_search import search

BITS = (2, 3, 4)
needs_library = pytest.mark.skipif(library() is None, reason="the operators were not built")


def naive_levels(symbols: np.ndarray, bits: int) -> np.ndarray:
    """Levels ``[64]`` of one word, from its bits in a list."""
    stream = [int(symbol) >> bit & 1 for symbol in symbols for bit in range(bits)]
    low, high = TABLES[bits]
    found = []
    for weight in range(64):
        window = sum(stream[(bits * weight + bit) % len(stream)] << bit for bit in range(8))
        found.append(low[window & 15] + high[window >> 4] - 63)
    return np.array(found)


def gaussian(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("rows", [8, 16, 13])
def test_levels_follow_the_definition(bits: int, rows: int) -> None:
    symbols = torch.randint(0, 2**bits, (rows, 24), generator=torch.Generator().manual_seed(rows))
    found = levels(symbols.to(torch.int8), bits)
    padded = np.zeros((16, 24), int)
    padded[:rows] = symbols.numpy()
    for top in range(0, rows, 8):
        for left in range(0, 24, 8):
            word = naive_levels(padded[top : top + 8, left : left + 8].ravel(), bits).reshape(8, 8)
            own = found[top : top + 8, left : left + 8].numpy()
            assert (own == word[: len(own)]).all()


@pytest.mark.parametrize("bits", BITS)
def test_tables_are_bytes_whose_products_fit(bits: int) -> None:
    assert all(len(table) == 16 and min(table) >= 0 and max(table) <= 63 for table in TABLES[bits])
    assert int(window_levels(bits).abs().max()) <= 63


def test_dequantized_is_in_the_basis_of_the_inputs_as_they_come() -> None:
    symbols = torch.randint(0, 8, (16, 48), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    scale = gaussian(16, 1).abs() + 0.1
    back = rotated(dequantized(symbols, scale, 3))
    torch.testing.assert_close(back, scale * levels(symbols, 3), rtol=1e-5, atol=1e-4)


def test_inputs_that_are_no_whole_words_are_refused() -> None:
    with pytest.raises(ShapeError, match="12 inputs"):
        levels(torch.zeros(8, 12, dtype=torch.int8), 3)


def test_rows_are_those_of_the_whole() -> None:
    symbols = torch.randint(0, 8, (21, 48), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    tensor = QTensor(Scheme.parse("T3A16"), symbols, gaussian(21, 1).abs())
    whole = tensor.dequantize()
    for rows in (slice(0, 5), slice(3, 17), slice(9, 21), slice(16, 21), slice(8, 8)):
        assert torch.equal(tensor.dequantize(rows=rows), whole[rows])
    order = torch.cat([torch.arange(8, 16), torch.arange(8), torch.arange(16, 21)])
    assert torch.equal(tensor.rows(order).dequantize(), whole[order])


@pytest.mark.parametrize("order", [[1, 0, *range(2, 16)], [*range(4, 12)], [*range(5)], [*range(8), 8, 9]])
def test_rows_that_take_words_apart_are_refused(order: list[int]) -> None:
    tensor = QTensor(Scheme.parse("T3A16"), torch.zeros(16, 8, dtype=torch.int8), torch.ones(16, 1))
    with pytest.raises(ShapeError, match="take words of 8 rows apart"):
        tensor.rows(torch.tensor(order))


@needs_library
@pytest.mark.parametrize("bits", BITS)
def test_rounding_keeps_rows_of_zeros_and_any_size(bits: int) -> None:
    weight = gaussian(24, 64) * torch.logspace(-12, 12, 24)[:, None]
    weight[3] = 0
    found = quantize(weight, Scheme.parse(f"T{bits}A16")).dequantize()
    assert not found[3].any()
    missed = (found - weight).square().sum(1) / weight.square().sum(1).clamp_min(1e-30)
    assert float(missed.max()) < {2: 0.2, 3: 0.06, 4: 0.02}[bits]


@needs_library
@pytest.mark.parametrize(("bits", "most"), [(2, 0.084), (3, 0.0235), (4, 0.0068)])
def test_squared_error_of_a_gaussian(bits: int, most: float) -> None:
    weight, scale = gaussian(256, 128), torch.full((256, 1), UNITS[bits])
    found = scale * levels(nearest_symbols(weight, scale, bits), bits)
    assert float((found - weight).square().mean()) < most


@needs_library
@pytest.mark.parametrize("bits", BITS)
def test_the_search_finds_what_trying_every_start_finds_nearly_always(bits: int) -> None:
    words = gaussian(12, 64).numpy() / UNITS[bits]
    table = window_levels(bits).numpy().astype(np.float32)
    found = search(words, table, bits)
    for word, symbols in zip(words, found, strict=True):
        error = ((naive_levels(symbols, bits) - word) ** 2).sum()
        best = naive_best(word, table, bits)
        assert best * (1 - 1e-4) <= error <= 1.5 * best


def naive_best(word: np.ndarray, table: np.ndarray, bits: int) -> float:
    """The least squared error of any word: dynamic programming in float64 from each node at the seam."""
    nodes = 256 >> bits
    cost = np.full((nodes, nodes), np.inf)  # by the start, and the node reached
    np.fill_diagonal(cost, 0)
    window = np.arange(256)
    for weight in word:
        reached = cost[:, window % nodes] + (weight - table.astype(np.float64)) ** 2
        cost = reached.reshape(nodes, nodes, 1 << bits).min(-1)
    return float(cost.diagonal().min())


@needs_library
@pytest.mark.parametrize("bits", BITS)
def test_the_search_gives_back_words_that_are_on_the_grid(bits: int) -> None:
    symbols = torch.randint(0, 2**bits, (64, 64), generator=torch.Generator().manual_seed(3)).to(torch.int8)
    exact, one = levels(symbols, bits).to(torch.float32), torch.ones(64, 1)
    missed = levels(nearest_symbols(exact, one, bits), bits) != exact
    # Two searches may miss the seam: then a whole word is only near.
    assert float(missed.float().mean()) < 0.05


@needs_library
@pytest.mark.parametrize("bits", BITS)
def test_words_do_not_depend_on_each_other_and_padding_is_symbol_zero(bits: int) -> None:
    weight, scale = gaussian(21, 16), torch.full((21, 1), UNITS[bits])
    whole = nearest_symbols(weight, scale, bits)
    assert torch.equal(whole[8:16], nearest_symbols(weight[8:16], scale[8:16], bits))
    padded = np.zeros((2, 64), np.float32)
    symbols = search(padded + 3, window_levels(bits).numpy().astype(np.float32), bits, 40)
    assert (symbols[:, 40:] == 0).all()
    error = (scale * levels(whole, bits) - weight)[16:].square().mean()
    assert float(error) < 0.25
