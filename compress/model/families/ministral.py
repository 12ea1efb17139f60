"""Ministral: Mistral's form, whose layers see a sliding window or the whole text, as the config lists them.

Mistral AI, Un Ministral, des Ministraux, 2024.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._config import FULL, SLIDING, windows_of_types
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config, integer
from .mistral import DEFAULT_WINDOW


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    null = "sliding_window" in config and config["sliding_window"] is None
    window = None if null else integer(config, "sliding_window", DEFAULT_WINDOW)
    count, kinds = integer(config, "num_hidden_layers"), config.get("layer_types")
    kinds = [FULL if null else SLIDING] * count if kinds is None else kinds
    windows = windows_of_types(kinds, count, window)
    return llama_like(config, shapes, LlamaLike(max_positions=131_072), windows=windows)
