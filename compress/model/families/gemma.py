"""Gemma: Llama's form with norms stored around zero, embeddings scaled by sqrt(hidden), and wide heads.

Gemma Team, Gemma: Open Models Based on Gemini Research and Technology, 2024, arXiv 2403.08295.
"""

from ..anatomy import Anatomy, Shapes
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config

FAMILY = LlamaLike(
    max_positions=8192,
    norm_offset=1.0,
    scaled_embedding=True,
    activation="gelu_pytorch_tanh",
)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    # Early checkpoints say "gelu" and mean its tanh form, which is what transformers runs.
    exact = {"hidden_act": FAMILY.activation} if config.get("hidden_act") == "gelu" else {}
    return llama_like({**config, **exact}, shapes, FAMILY)
