"""Mistral: Llama's form, with one sliding window in every layer unless the config says null.

Jiang et al., Mistral 7B, 2023, arXiv 2310.06825.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config, integer

DEFAULT_WINDOW = 4096


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    null = "sliding_window" in config and config["sliding_window"] is None
    window = None if null else integer(config, "sliding_window", DEFAULT_WINDOW)
    windows = [window] * integer(config, "num_hidden_layers")
    return llama_like(config, shapes, LlamaLike(max_positions=131_072), windows=windows)
