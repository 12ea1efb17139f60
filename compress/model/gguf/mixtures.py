"""The configs of mixtures of experts, a row for each of llama.cpp's names; ``llama`` with them is Mixtral."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ....errors import CheckpointError, UnknownName
from .configs import NO_WINDOW, OF_GRANITE, ROWS, ConfigRow, Named
from .stacks import STACKS
from .states import OF_JAMBA, STATES, jamba

_WAY_OUT = "take the model's safetensors checkpoint"
_CHOSEN: Named = {"expert_used_count": "num_experts_per_tok"}
_LOCAL = _CHOSEN | {"expert_count": "num_local_experts"}
_SAME_WIDTH = _CHOSEN | {"expert_count": "num_experts", "attention.key_length": None}
_OWN_WIDTH = _CHOSEN | {
    "expert_count": "num_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}
_OF_DEEPSEEK = _CHOSEN | {
    "expert_count": "n_routed_experts",
    "expert_shared_count": "n_shared_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "attention.key_length": None,
    "attention.value_length": "v_head_dim",
    "attention.kv_lora_rank": "kv_lora_rank",
    "rope.dimension_count": "qk_rope_head_dim",
}


def row_of(path: Path, architecture: str, settings: Mapping[str, object]) -> ConfigRow:
    """The row of the file ``path``, which has llama.cpp's name ``architecture``, and experts or none as its
    ``settings`` say.
    """
    plain = {**ROWS, **STATES, **STACKS}
    known = {**plain, **MIXTURES}
    if architecture not in known:
        # Without the nearest: a similar name is another network.
        raise UnknownName("model family", architecture, list(known), fix=_WAY_OUT)
    experts = settings.get("expert_count") not in (None, 0, 1)  # a Jamba without experts says one
    row = (MIXTURES if experts else plain).get(architecture)
    if row is None:
        raise CheckpointError(
            f"{path} is a {architecture} {'with' if experts else 'without'} experts, which is not read",
            fix=_WAY_OUT,
        )
    return row


def _latent(settings: Mapping[str, object], names: Collection[str]) -> dict[str, Any]:
    """What DeepSeek-V3's config says in another way, or where llama.cpp's default is another."""

    def whole(name: str, default: int) -> int:
        return value if type(value := settings.get(name)) is int else default

    turned = whole("rope.dimension_count", 0)
    return {
        "qk_nope_head_dim": whole("attention.key_length", 0) - turned,
        "q_lora_rank": whole("attention.q_lora_rank", 0) or None,
        "first_k_dense_replace": whole("leading_dense_block_count", 0),
        "norm_topk_prob": settings.get("expert_weights_norm") is True,
        "routed_scaling_factor": settings.get("expert_weights_scale", 1.0),
        "n_group": whole("expert_group_count", 1),
        "topk_group": whole("expert_group_used_count", 1),
    }


MIXTURES = {
    "llama": ConfigRow("mixtral", NO_WINDOW | _LOCAL),
    "qwen2moe": ConfigRow(
        "qwen2_moe", NO_WINDOW | _OWN_WIDTH, biases="qkv_bias", implies={"norm_topk_prob": False}
    ),
    "qwen3moe": ConfigRow(
        "qwen3_moe", NO_WINDOW | _OWN_WIDTH, implies={"attention_bias": False, "norm_topk_prob": True}
    ),
    "olmoe": ConfigRow("olmoe", _SAME_WIDTH, implies={"norm_topk_prob": False}),
    "granitemoe": ConfigRow("granitemoe", OF_GRANITE | _LOCAL),
    "gpt-oss": ConfigRow("gpt_oss", _LOCAL, implies={"swiglu_limit": 7.0, "sliding_window": None}),
    "deepseek2": ConfigRow("deepseek_v3", _OF_DEEPSEEK, further=_latent),
    "jamba": ConfigRow("jamba", OF_JAMBA | _CHOSEN | {"expert_count": "num_experts"}, further=jamba),
}
