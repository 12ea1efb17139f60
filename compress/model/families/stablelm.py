"""StableLM: Llama's form with LayerNorm and a rope over a quarter of each head.

Bellagente et al., Stable LM 2 1.6B Technical Report, 2024, arXiv 2402.17834.
"""

from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._llama_like import ONE, LlamaLike, llama_like
from ._tensors import Config

FAMILY = LlamaLike(max_positions=4096, norm_kind="layer", eps_key="layer_norm_eps", eps=1e-5)
DEFAULT_ROTATED = 0.25


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    if config.get("qk_layernorm"):
        raise CheckpointError(
            "config.json sets qk_layernorm: StableLM with a norm for each head is not supported"
        )
    family = FAMILY
    if config.get("use_parallel_residual"):
        family = replace(FAMILY, norms=ONE, order="parallel")
    return llama_like({"partial_rotary_factor": DEFAULT_ROTATED, **config}, shapes, family)
