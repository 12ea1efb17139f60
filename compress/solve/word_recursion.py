"""GPTQ's recursion by words of a trellis: eight columns are rounded at once, later ones absorb their error.

As LDLQ by blocks in Tseng et al. 2024, "QTIP: Quantization with Trellises and Incoherence Processing", arXiv
2406.11235. With ``H`` the damped Gram of the rotated inputs, ``H⁻¹ = Uᵀ U`` and ``D`` the error of the
columns b of a word, ``e = D U_bb⁻¹`` and every later column k changes by ``−e U_bk``; the squared output
error of a row is ``Σ e²``, as of single columns (:mod:`.column_recursion`).
"""

import torch
from torch import Tensor

from ...terminal.progress import Tick, unseen
from ..numbers.grid import row_scales
from ..numbers.qtensor import QTensor
from ..numbers.scheme import WORD_SIDE, Scheme
from ..numbers.trellis import levels, nearest_symbols
from ..pipeline.advance import Work
from .damped_cholesky import InverseFactor

_PANEL = 64  # columns whose errors change the rest of the weight in one product


def quantize_words(
    weight: Tensor, scheme: Scheme, factor: InverseFactor, left: Tensor, tick: Tick = unseen
) -> QTensor:
    """Round ``weight [out, in]``, in the basis of the rotated inputs, whose damped Gram has the ``factor``.

    ``left [out]`` is added the squared error of each row's outputs under it. ``tick`` receives the
    multiply-adds that are done.
    """
    scale, rest, width = row_scales(weight, scheme), weight.clone(), weight.shape[1]
    symbols = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    for start in range(0, width, _PANEL):
        stop = min(start + _PANEL, width)
        upper = factor.panel(start, stop)
        panel, errors = rest[:, start:stop], torch.empty_like(rest[:, start:stop])
        for first in range(0, stop - start, WORD_SIDE):
            word, later = slice(first, first + WORD_SIDE), slice(first + WORD_SIDE, stop - start)
            found = nearest_symbols(panel[:, word], scale, scheme.bits)
            symbols[:, start:stop][:, word] = found
            difference = panel[:, word] - scale * levels(found, scheme.bits)
            errors[:, word] = torch.linalg.solve_triangular(
                upper[word, word], difference, upper=True, left=False
            )
            panel[:, later] -= errors[:, word] @ upper[word, later]
        left += errors.square().sum(1)
        rest[:, stop:] -= errors @ upper[:, stop - start :]
        tick(Work(errors.numel() * width / 2, entries=errors.numel()).multiplications)
    return QTensor(scheme, symbols, scale)
