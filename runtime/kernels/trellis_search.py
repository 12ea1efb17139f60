"""The search for the symbols of a trellis' words, by the library of operators (``src/trellis_search.c``)."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from .library import require_library

WEIGHTS, WINDOWS = 64, 256
_LEAST = 32  # words that are worth a thread


def search(
    values: NDArray[np.float32],
    levels: NDArray[np.float32],
    bits: int,
    real: int = WEIGHTS,
    threads: int = 1,
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
    share = max(_LEAST, -(-len(values) // threads))

    def found(start: int) -> None:
        words, into = values[start : start + share], symbols[start : start + share]
        function(words.ctypes.data, levels.ctypes.data, len(words), real, bits, into.ctypes.data)

    starts = range(0, len(values), share)
    if len(starts) < 2:
        found(0)
        return symbols
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(found, starts))
    return symbols
