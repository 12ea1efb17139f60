"""Gemma 3 without images: Gemma 2's form with norms of q and k in place of the soft caps, and with a rope of
its own for the layers that see a sliding window, five of six.

Gemma Team, Gemma 3 Technical Report, 2025, arXiv 2503.19786.
"""

from dataclasses import replace

from ..anatomy import Anatomy, LogitForm, Shapes
from ._config import FULL, SLIDING, alternating_windows, rope_of_kind
from ._llama_like import AROUND, LAYERS, LlamaLike, base_of, llama_like
from ._tensors import Config, integer, number, shape_of

FAMILY = LlamaLike(
    max_positions=131_072,
    qk_norm="head",
    norm_offset=1.0,
    scaled_embedding=True,
    norms=AROUND,
    activation_key="hidden_activation",
    activation="gelu_pytorch_tanh",
)
DEFAULT_WINDOW, INTERVAL = 4096, 6
LOCAL_THETA, THETA = 10_000.0, 1_000_000.0


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    windows = alternating_windows(config, integer(config, "sliding_window", DEFAULT_WINDOW), INTERVAL)
    (head_dim,) = shape_of(shapes, f"{base_of(shapes)}{LAYERS}.0.self_attn.q_norm.weight", None)
    # Before transformers 5 the config had a theta for each kind.
    local = rope_of_kind(config, SLIDING, number(config, "rope_local_base_freq", LOCAL_THETA), head_dim)
    whole = rope_of_kind(config, FULL, number(config, "rope_theta", THETA), head_dim)
    turned = [whole if window is None else local for window in windows]
    found = llama_like(config, shapes, FAMILY, windows=windows, ropes=turned)
    scale = number(config, "query_pre_attn_scalar", 256.0) ** -0.5
    cap = "final_logit_softcapping"  # transformers does not read the one of attention
    limit = None if config.get(cap) is None else number(config, cap, 1.0)
    blocks = tuple(replace(block, mixer=replace(block.attention, scale=scale)) for block in found.blocks)
    return replace(found, blocks=blocks, logit_form=None if limit is None else LogitForm(softcap=limit))
