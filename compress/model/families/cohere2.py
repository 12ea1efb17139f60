"""Cohere 2 (Command R7B, Command A): Cohere's form with a sliding window and a rope in three layers of four,
and neither in the fourth.

Cohere, Command A: An Enterprise-Ready Large Language Model, 2025, arXiv 2504.00698.
"""

from dataclasses import replace

from ..anatomy import Anatomy, Shapes
from ._config import alternating_windows, head_size, rope
from ._llama_like import llama_like
from ._tensors import Config, integer
from .cohere import DEFAULT_THETA, FAMILY, with_logit_scale

DEFAULT_WINDOW = 4096
INTERVAL = 4


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    windows = alternating_windows(config, integer(config, "sliding_window", DEFAULT_WINDOW), INTERVAL)
    plain = {"rope_theta": DEFAULT_THETA, **config}
    turned = replace(rope(plain, head_size(config)), interleaved=True)
    ropes = [None if window is None else turned for window in windows]
    return with_logit_scale(config, llama_like(plain, shapes, FAMILY, windows=windows, ropes=ropes))
