"""The recursion by words of a trellis: against a dense solve, and against plain rounding."""

import pytest
import torch
from edgepress.compress.numbers.grid import row_scales
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.numbers.trellis import levels, nearest_symbols
from edgepress.compress.pipeline.statistics import mean_square_of_outputs
from edgepress.compress.solve.damped_cholesky import damped, factorize
from edgepress.compress.solve.word_recursion import quantize_words
from edgepress.runtime.kernels.library import library
from torch import Tensor

pytestmark = pytest.mark.skipif(library() is None, reason="the operators were not built")

DAMPING, WIDTH = 0.01, 136  # more than one panel of columns, and no whole number of them
GENERATOR = torch.Generator().manual_seed(0)
MIXED = torch.randn(1024, 48, generator=GENERATOR) @ torch.randn(48, WIDTH, generator=GENERATOR)
INPUTS = MIXED + torch.randn(1024, WIDTH, generator=GENERATOR)
GRAM = INPUTS.T @ INPUTS / len(INPUTS)


def gaussian(rows: int) -> Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(rows)) * 0.05


def naive(weight: Tensor, scheme: Scheme) -> Tensor:
    """The weights ``[out, in]`` where the later columns are solved for again after each word, in float64."""
    hessian, scale = damped(GRAM, DAMPING).double(), row_scales(weight, scheme)
    left, found = weight.double(), torch.empty(weight.shape, dtype=torch.float64)
    for start in range(0, WIDTH, 8):
        word, later = slice(start, start + 8), slice(start + 8, WIDTH)
        symbols = nearest_symbols(left[:, word].float(), scale, scheme.bits)
        found[:, word] = (scale * levels(symbols, scheme.bits)).double()
        error = found[:, word] - left[:, word]
        left[:, later] -= error @ torch.linalg.solve(hessian[later, later], hessian[later, word]).T
    return found


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("rows", [16, 21])
def test_later_columns_absorb_the_errors_of_a_word(bits: int, rows: int) -> None:
    weight, scheme = gaussian(rows), Scheme.parse(f"T{bits}A16")
    factor = factorize(GRAM, DAMPING)
    assert factor is not None
    left = torch.zeros(rows)
    solved = quantize_words(weight, scheme, factor, left)

    def error(found: Tensor, gram: Tensor = GRAM) -> float:
        return mean_square_of_outputs(found - weight, gram)

    scale = row_scales(weight, scheme)
    found = scale * levels(solved.codes, bits)
    plain = scale * levels(nearest_symbols(weight, scale, bits), bits)
    assert torch.equal(solved.scale, scale)
    assert error(found) < 0.7 * error(plain)
    # A sum in another order may tip a symbol, and the words after it.
    assert error(found) == pytest.approx(error(naive(weight, scheme).float()), rel=0.1)
    assert float(left.sum()) == pytest.approx(error(found, damped(GRAM, DAMPING)), rel=1e-2)


def test_the_same_symbols_on_any_number_of_threads() -> None:
    weight, scheme, before = gaussian(96), Scheme.parse("T3A16"), torch.get_num_threads()
    scale = row_scales(weight, scheme)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(nearest_symbols(weight, scale, 3))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
