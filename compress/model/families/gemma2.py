"""Gemma 2: Gemma's form with norms after attention and MLP too, soft-capped scores and logits, and a sliding
window in every other layer.

Gemma Team, Gemma 2: Improving Open Language Models at a Practical Size, 2024, arXiv 2408.00118.
"""

from dataclasses import replace

from ..anatomy import Anatomy, LogitForm, Shapes
from ._config import windows_of_types
from ._llama_like import AROUND, LlamaLike, llama_like
from ._tensors import Config, integer, number

FAMILY = LlamaLike(
    max_positions=8192,
    norm_offset=1.0,
    scaled_embedding=True,
    norms=AROUND,
    activation_key="hidden_activation",
    activation="gelu_pytorch_tanh",
)
DEFAULT_WINDOW = 4096


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    count = integer(config, "num_hidden_layers")
    alternating = ["sliding_attention", "full_attention"] * count
    kinds = config.get("layer_types") or alternating[:count]
    window = integer(config, "sliding_window", DEFAULT_WINDOW)
    found = llama_like(config, shapes, FAMILY, windows=windows_of_types(kinds, count, window))
    scale = number(config, "query_pre_attn_scalar", 256.0) ** -0.5
    cap = soft_cap(config, "attn_logit_softcapping", 50.0)
    blocks = tuple(
        replace(block, mixer=replace(block.attention, scale=scale, softcap=cap)) for block in found.blocks
    )
    limit = soft_cap(config, "final_logit_softcapping", 30.0)
    return replace(found, blocks=blocks, logit_form=None if limit is None else LogitForm(softcap=limit))


def soft_cap(config: Config, key: str, default: float) -> float | None:
    """The limit ``key`` of a config, where null is none and silence the default."""
    return None if key in config and config[key] is None else number(config, key, default)
