"""Phi-3, Phi-3.5 and Phi-4: Llama's form with q, k and v in one matrix, gate and up in another. Of longrope
the angles up to the length of the pretraining are used, which is as far as such a model is exported.

Abdin et al., Phi-3 Technical Report, 2024, arXiv 2404.14219.
"""

from ..anatomy import Anatomy, Shapes
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config, integer

FAMILY = LlamaLike(max_positions=4096, eps=1e-5, fused_attention=True, fused_mlp=True)
ORIGINAL = 4096
# What longrope was called first.
_LONGROPE = ("su", "yarn")


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    window = None if config.get("sliding_window") is None else integer(config, "sliding_window")
    plain = {"original_max_position_embeddings": ORIGINAL, **config}
    for key in ("rope_parameters", "rope_scaling"):
        table = config.get(key)
        if isinstance(table, dict) and table.get("rope_type", table.get("type")) in _LONGROPE:
            plain[key] = {**table, "rope_type": "longrope"}
    windows = [window] * integer(config, "num_hidden_layers")
    return llama_like(plain, shapes, FAMILY, windows=windows)
