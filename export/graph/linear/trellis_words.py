"""The words of a trellis in tiles, as ``runtime/kernels/src/trellis.inc`` reads them.

A unit of 16 inputs has four words of 8 outputs by 8 inputs: those of its first 8 inputs, first and last
outputs, then those of the others. A word is the ring of its symbols' bits, row after row, least significant
first (:mod:`edgepress.compress.numbers.trellis`).
"""

import numpy as np
from numpy.typing import NDArray

_SIDE = 8


def packed_words(symbols: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """``[tiles, bytes]`` of ``symbols [tiles, 16, inputs]``, whose inputs are a multiple of 16."""
    tiles, outputs, inputs = symbols.shape
    words = symbols.reshape(tiles, outputs // _SIDE, _SIDE, inputs // _SIDE, _SIDE).transpose(0, 3, 1, 2, 4)
    each = words[..., None] >> np.arange(bits, dtype=np.uint8) & np.uint8(1)
    return np.packbits(each.reshape(tiles, -1), axis=1, bitorder="little")
