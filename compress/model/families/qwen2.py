"""Qwen2 and Qwen2.5: Llama's form with biases on q, k and v; the upper layers may see a sliding window.

Yang et al., Qwen2 Technical Report, 2024, arXiv 2407.10671.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._config import layer_windows
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return llama_like(config, shapes, LlamaLike(max_positions=32_768), windows=layer_windows(config))
