"""The search for the symbols of a trellis' words, by the library of operators (``src/trellis_search.c``)."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from .library import require_library

WEIGHTS, WINDOWS = 64, 256


def search(
    values: NDArray[np.float32], levels: NDArray[np.float32], bits: int, real: int = WEIGHTS
) -> NDArray[np.uint8]:
    """The symbols ``[words, 64]``, of so many ``bits`` each, whose ``levels [256]`` are near ``values``.

    Weights from ``real`` on pad a word: they have symbol 0, and their values do not count.

    Raises:
        MissingDependency: there is no library of operators.
    """
    function = ctypes.CDLL(str(require_library("rounding to a trellis"))).edgepress_trellis_search
    function.restype, array = None, ctypes.c_void_p
    function.argtypes = [array, array, ctypes.c_int64, ctypes.c_int, ctypes.c_int, array]
    values, levels = np.ascontiguousarray(values, np.float32), np.ascontiguousarray(levels, np.float32)
    if values.shape[1:] != (WEIGHTS,) or levels.shape != (WINDOWS,) or bits not in (2, 3, 4):
        raise ValueError(f"words {values.shape}, levels {levels.shape}, {bits} bits")
    symbols = np.empty(values.shape, np.uint8)
    function(values.ctypes.data, levels.ctypes.data, len(values), real, bits, symbols.ctypes.data)
    return symbols
