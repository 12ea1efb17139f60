"""Gemma 3 without images: Gemma 2's form with norms of q and k in place of the soft caps, and with a rope of
its own for the layers that see a sliding window, five of six.

Gemma Team, Gemma 3 Technical Report, 2025, arXiv 2503.19786.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..anatomy import Anatomy, LogitForm, Shapes
from ..block_anatomy import Rope
from ._config import rope, windows_of_types
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config, integer, number, shape_of

FAMILY = LlamaLike(
    max_positions=131_072,
    qk_norm=True,
    norm_offset=1.0,
    scaled_embedding=True,
    sandwiched=True,
    activation_key="hidden_activation",
    activation="gelu_pytorch_tanh",
)
DEFAULT_WINDOW, PATTERN = 4096, 6
SLIDING, FULL = "sliding_attention", "full_attention"
# Where the config of before transformers 5 says the theta of each kind of layer, and what it is by default.
THETAS = {SLIDING: ("rope_local_base_freq", 10_000.0), FULL: ("rope_theta", 1_000_000.0)}


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    count = integer(config, "num_hidden_layers")
    kinds = config.get("layer_types")
    if kinds is None:
        pattern = integer(config, "sliding_window_pattern", PATTERN)
        kinds = [SLIDING if (index + 1) % pattern else FULL for index in range(count)]
    windows = windows_of_types(kinds, count, integer(config, "sliding_window", DEFAULT_WINDOW))
    (head_dim,) = shape_of(shapes, "model.layers.0.self_attn.q_norm.weight", None)
    ropes = {kind: _rope(config, kind, head_dim) for kind in THETAS}
    turned = [ropes[kind] for kind in kinds]
    found = llama_like(config, shapes, FAMILY, windows=windows, ropes=turned)
    scale = number(config, "query_pre_attn_scalar", 256.0) ** -0.5
    cap = "final_logit_softcapping"  # transformers does not read the one of attention
    limit = None if config.get(cap) is None else number(config, cap, 1.0)
    blocks = tuple(replace(block, attention=replace(block.attention, scale=scale)) for block in found.blocks)
    return replace(found, blocks=blocks, logit_form=None if limit is None else LogitForm(softcap=limit))


def _rope(config: Config, kind: str, head_dim: int) -> Rope:
    """The rope of the layers of a kind; scaling of the older form is of those with full attention."""
    key, theta = THETAS[kind]
    given = config.get("rope_parameters")
    own: Any = given.get(kind) if isinstance(given, dict) else None
    plain = {name: value for name, value in config.items() if name not in ("rope_parameters", "rope_theta")}
    if kind == SLIDING:
        plain.pop("rope_scaling", None)
    return rope({**plain, "rope_theta": number(config, key, theta), "rope_parameters": own or {}}, head_dim)
