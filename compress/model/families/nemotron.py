"""Nemotron and Minitron: Llama's form with LayerNorms whose scales are stored around zero, a rope over half
of each head, and an MLP without gate.

Parmar et al., Nemotron-4 15B Technical Report, 2024, arXiv 2402.16819.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config

FAMILY = LlamaLike(
    max_positions=4096,
    norm_kind="layer",
    norm_offset=1.0,
    eps_key="norm_eps",
    eps=1e-5,
    gated=False,
    activation="relu2",
)
DEFAULT_ROTATED = 0.5


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return llama_like({"partial_rotary_factor": DEFAULT_ROTATED, **config}, shapes, FAMILY)
