"""Llama, and the models that publish under its name: SmolLM2, TinyLlama, Vicuna, …

Touvron et al., LLaMA: Open and Efficient Foundation Language Models, 2023, arXiv 2302.13971.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config

# Mistral without a window is Llama without biases.
SIZES = SizeKeys(twin=("mistral", "MistralForCausalLM"))


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return llama_like(config, shapes, LlamaLike(max_positions=2048))
