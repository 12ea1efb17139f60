"""Cohere's Command R without norms of q and k: Llama's form with attention and MLP side by side behind one
LayerNorm without bias, a rope over neighbouring channels, and a factor on the logits.

Cohere, Command R: retrieval-augmented generation at production scale, 2024.
"""

from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, LogitForm, Shapes
from ._llama_like import ONE, LlamaLike, llama_like
from ._tensors import Config, number

FAMILY = LlamaLike(
    max_positions=8192,
    norm_kind="layer",
    norm_bias=False,
    eps_key="layer_norm_eps",
    eps=1e-5,
    norms=ONE,
    order="parallel",
    neighbours_turn=True,
)
DEFAULT_THETA = 500_000.0
DEFAULT_LOGIT_SCALE = 0.0625


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    if config.get("use_qk_norm"):
        raise CheckpointError("config.json sets use_qk_norm: Cohere with norms of q and k is not supported")
    return with_logit_scale(config, llama_like({"rope_theta": DEFAULT_THETA, **config}, shapes, FAMILY))


def with_logit_scale(config: Config, found: Anatomy) -> Anatomy:
    """``found`` with the factor on its logits."""
    return replace(found, logit_form=LogitForm(number(config, "logit_scale", DEFAULT_LOGIT_SCALE)))
