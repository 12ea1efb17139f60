"""Ministral 3: Mistral's form, whose queries grow with their position behind the length of the pretraining: a
graph is for that length.

Mistral AI, Introducing Mistral 3, 2025.
"""

from dataclasses import replace

from ..anatomy import Anatomy, Shapes
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config, integer

FAMILY = LlamaLike(max_positions=262_144, eps=1e-5)
ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16_384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
ORIGINAL = "original_max_position_embeddings"


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    window = None if config.get("sliding_window") is None else integer(config, "sliding_window")
    plain = {**config, "rope_parameters": config.get("rope_parameters") or ROPE}
    found = llama_like(plain, shapes, FAMILY, windows=[window] * integer(config, "num_hidden_layers"))
    trained = integer(found.rope.scaling if found.rope else {}, ORIGINAL, found.max_positions)
    return replace(found, max_positions=min(found.max_positions, trained))
