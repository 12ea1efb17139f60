"""Trellis grids T2A16, T3A16 and T4A16: words of 8 rows × 8 columns, whose symbols' bits overlap in windows.

As in Tseng et al. 2024, "QTIP: Quantization with Trellises and Incoherence Processing", arXiv 2406.11235, but
tail-biting: the bits of a word's 64 symbols are a ring, k bits a symbol, least significant first, row after
row. The window of weight i is the 8 bits from bit k·i on. Its level is the sum of two tables' entries, one
for each half of the window, less 63, so that every processor decodes by two byte shuffles. ``weight = scale ·
level`` in the basis of the rotated inputs (:mod:`.input_rotation`), one scale a row.

The tables were found by Lloyd's iteration for Gaussian weights; their squared error of a unit Gaussian is
0.082, 0.0227 and 0.0065 at 2, 3 and 4 bits.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...errors import ShapeError
from ...runtime.kernels.trellis_search import search
from .input_rotation import rotated_back
from .scheme import WORD_SIDE

MIDDLE = 63
# What the search for the symbols of a weight takes, in roundings to a grid.
SEARCHED = 400
_TILE_WEIGHTS = 1 << 17  # whose temporaries stay in the second-level cache
# By bits, what the low and the high half of a window add to a level.
TABLES = {
    2: (
        (20, 32, 0, 48, 24, 49, 36, 6, 25, 54, 12, 38, 63, 14, 43, 29),
        (52, 26, 37, 33, 23, 15, 47, 26, 37, 42, 15, 20, 38, 38, 25, 45),
    ),
    3: (
        (38, 0, 13, 33, 21, 45, 28, 53, 18, 50, 63, 24, 31, 36, 42, 9),
        (12, 42, 31, 14, 19, 27, 41, 39, 33, 33, 37, 26, 24, 49, 51, 20),
    ),
    4: (
        (35, 31, 18, 29, 38, 47, 43, 22, 27, 62, 33, 40, 24, 3, 51, 13),
        (37, 33, 21, 18, 42, 24, 29, 26, 44, 31, 13, 33, 50, 29, 39, 36),
    ),
}
# By bits, the scale of Gaussian weights of variance 1.
UNITS = {2: 0.05283, 3: 0.05787, 4: 0.06719}


def window_levels(bits: int) -> Tensor:
    """The level ``[256]`` int16 of each window."""
    low, high = (torch.tensor(table, dtype=torch.int16) for table in TABLES[bits])
    return (high[:, None] + low).flatten() - MIDDLE


def levels(symbols: Tensor, bits: int) -> Tensor:
    """The levels ``[out, in]`` int16 of ``symbols [out, in]``, each in 0 … 2^bits − 1; missing rows of the
    last words are symbols 0.

    Raises:
        ShapeError: the inputs are no multiple of 8.
    """
    words = _words(symbols).to(torch.int16)
    windows = torch.zeros_like(words)
    for index in range(-(-8 // bits)):
        windows |= words.roll(-index, 1) << (bits * index)
    return _matrix(window_levels(bits)[(windows & 255).long()], symbols.shape)


def dequantized(symbols: Tensor, scale: Tensor, bits: int, rows: slice = slice(None)) -> Tensor:
    """The ``rows`` of the weight ``[out, in]`` float32, in the basis of the inputs as they come, that
    ``symbols [out, in]`` and ``scale [out, 1]`` stand for.

    Raises:
        ShapeError: the inputs are no multiple of 8.
    """
    start, stop, _ = rows.indices(len(symbols))
    first = start // WORD_SIDE * WORD_SIDE
    near = slice(first, -(-stop // WORD_SIDE) * WORD_SIDE)
    codes, steps = symbols[near], scale[near]
    whole = torch.empty(codes.shape, device=codes.device)
    for tile in word_tiles(codes):
        whole[tile] = rotated_back(steps[tile] * levels(codes[tile], bits))
    return whole[start - first : stop - first]


def check_order(order: Tensor, rows: int) -> None:
    """Refuse an ``order [rows]`` of the rows of a matrix of so many that takes words apart.

    Raises:
        ShapeError: it does.
    """
    padded = torch.nn.functional.pad(order, (0, -len(order) % WORD_SIDE), value=-1).view(-1, WORD_SIDE)
    first = padded[:, :1]
    wanted = first + torch.arange(WORD_SIDE, device=order.device)
    if bool(((padded != wanted) & ((padded >= 0) | (wanted < rows))).any() or (first % WORD_SIDE != 0).any()):
        raise ShapeError(
            f"rows in another order take words of {WORD_SIDE} rows apart",
            fix="take a scheme of integers, such as W3A16",
        )


def nearest_symbols(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """``[out, in]`` int8 whose levels are near ``weight [out, in] / scale [out, 1]``, in the rotated basis.

    Raises:
        ShapeError: the inputs are no multiple of 8.
        MissingDependency: edgepress was installed without its operators.
    """
    found = torch.empty(weight.shape, dtype=torch.int8)
    for rows in word_tiles(weight):
        part = (weight[rows] / torch.where(scale[rows] == 0, 1, scale[rows])).to("cpu", torch.float32)
        symbols = search(
            _words(part).numpy(),
            window_levels(bits).to(torch.float32).numpy(),
            bits,
            WORD_SIDE * min(len(part), WORD_SIDE),
            torch.get_num_threads(),
        )
        found[rows] = _matrix(torch.from_numpy(symbols.astype(np.int8)), part.shape)
    return found.to(weight.device)


def word_tiles(matrix: Tensor) -> Iterator[slice]:
    """Runs of rows of ``matrix [out, in]`` in whole words, and the rows of the last if they are fewer."""
    rows, columns = matrix.shape
    whole = rows // WORD_SIDE * WORD_SIDE
    step = max(WORD_SIDE, _TILE_WEIGHTS // max(1, columns) // WORD_SIDE * WORD_SIDE)
    for start in range(0, whole, step):
        yield slice(start, min(start + step, whole))
    if whole < rows:
        yield slice(whole, rows)


def _words(matrix: Tensor) -> Tensor:
    """``[words, 64]`` of ``matrix [out, in]``, its last rows padded with zeros."""
    rows, columns = matrix.shape
    if columns % WORD_SIDE:
        raise ShapeError(
            f"{columns} inputs are no multiple of the {WORD_SIDE} columns of a trellis' word",
            fix="take a scheme of integers, such as W3A16-channel",
        )
    padded = torch.nn.functional.pad(matrix, (0, 0, 0, -rows % WORD_SIDE))
    return (
        padded.view(-1, WORD_SIDE, columns // WORD_SIDE, WORD_SIDE)
        .transpose(1, 2)
        .reshape(-1, WORD_SIDE * WORD_SIDE)
    )


def _matrix(words: Tensor, shape: torch.Size) -> Tensor:
    """Inverse of :func:`_words`."""
    rows, columns = shape
    matrix = words.view(-1, columns // WORD_SIDE, WORD_SIDE, WORD_SIDE).transpose(1, 2).reshape(-1, columns)
    return matrix[:rows]
