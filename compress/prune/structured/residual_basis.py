"""Which directions of the residual stream stay when it becomes narrower: an orthonormal basis ``[hidden,
kept]``, one for the whole model.

- ``activation``: the channels of largest mean ``|activation|`` behind the norms, layers counted alike
  (Muralidharan et al. 2024, "Compact Language Models via Pruning and Knowledge Distillation", arXiv
  2407.14679).
- ``reconstruction``: the channels that the readers of the norms can make up for least
  (:mod:`.elimination`).
- ``pca``: the principal directions of the normalized states (Ashkboos et al. 2024, "SliceGPT: Compress Large
  Language Models by Deleting Rows and Columns", arXiv 2401.15024), pooled over all norms: SliceGPT turns
  each block by its own matrix and pays for it with a product in every residual connection.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...solve.damped_cholesky import inverted
from .elimination import eliminate, in_rounds
from .residual_seen import Seen

Basis = Literal["activation", "reconstruction", "pca"]

_ROUNDS = 64
_DAMPING = 0.01
# A channel whose scale in the final norm is off the usual by more than this share keeps to itself.
_UNUSUAL = 0.25


def basis_of(seen: Seen, kind: Basis, count: int, apart: Tensor | None) -> Tensor | None:
    """The basis ``[hidden, count]``, float64; None where a Gram that is needed cannot be inverted.

    Channels in ``apart [hidden]`` (bool) are directions of their own.
    """
    if kind == "pca":
        return _principal(seen, count, apart)
    units = _most_active(seen, count) if kind == "activation" else _least_replaceable(seen, count)
    if units is None:
        return None
    return torch.eye(len(seen.size), dtype=torch.float64, device=units.device)[:, units]


def _most_active(seen: Seen, count: int) -> Tensor:
    return seen.size.sort(descending=True, stable=True).indices[:count].sort().values


def _least_replaceable(seen: Seen, count: int) -> Tensor | None:
    inverse = inverted(seen.gram / seen.tokens, _DAMPING)
    if inverse is None:
        return None
    values, vectors = torch.linalg.eigh(seen.wanted)
    root = (vectors * values.clamp_min(0).sqrt()).T
    return eliminate(root, inverse, 1, 1, in_rounds(len(root) - count, _ROUNDS))[0]


def _principal(seen: Seen, count: int, apart: Tensor | None) -> Tensor:
    gram = seen.gram.to(torch.float64) / seen.tokens
    if apart is not None:
        alone = apart.unsqueeze(0) | apart.unsqueeze(1)
        alone.fill_diagonal_(False)
        gram = gram.masked_fill(alone, 0.0)
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors.flip(1)[:, :count]


def unusual(scales: Tensor) -> Tensor:
    """The channels ``[hidden]`` (bool) whose scales are far from the usual."""
    usual = scales.median()
    return (scales - usual).abs() > _UNUSUAL * usual.abs()
