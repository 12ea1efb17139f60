"""The configs of encoders, mixtures of experts and state spaces, a row for each of llama.cpp's names.

``llama`` with experts is Mixtral.
"""

from collections.abc import Collection, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from ....errors import CheckpointError, UnknownName
from .configs import NO_WINDOW, OF_GRANITE, ROWS, ConfigRow, Named, Values

_NO_HEADS: Named = dict.fromkeys(
    ("attention.head_count", "attention.head_count_kv", "attention.key_length", "feed_forward_length")
)
_OF_MAMBA: Named = _NO_HEADS | {
    "context_length": None,
    "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
    "ssm.conv_kernel": "conv_kernel",
    "ssm.state_size": "state_size",
}
OF_JAMBA: Named = {
    "attention.key_length": None,
    "ssm.conv_kernel": "mamba_d_conv",
    "ssm.state_size": "mamba_d_state",
    "ssm.time_step_rank": "mamba_dt_rank",
}
_OF_LFM2: Named = {
    "attention.key_length": None,
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "shortconv.l_cache": "conv_L_cache",
}
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
_OF_BERT: Named = {"attention.head_count_kv": None, "attention.key_length": None}
_OF_MODERNBERT: Named = _OF_BERT | {
    "attention.layer_norm_epsilon": "norm_eps",
    "attention.sliding_window": "local_attention",
    "attention.sliding_window_pattern": "global_attn_every_n_layers",
}
_OF_T5: Named = NO_WINDOW | {
    "embedding_length": "d_model",
    "block_count": "num_layers",
    "decoder_block_count": "num_decoder_layers",
    "attention.head_count": "num_heads",
    "attention.head_count_kv": None,
    "attention.key_length": "d_kv",
    "attention.relative_buckets_count": "relative_attention_num_buckets",
    "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
    "feed_forward_length": "d_ff",
    "context_length": "n_positions",
    "decoder_start_token_id": "decoder_start_token_id",
}
# Tables that look up what the embedding does, and are stored in it alone.
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def _lfm2(settings: Mapping[str, object], names: Collection[str]) -> Values:
    heads = _heads(settings)
    kinds = ["full_attention" if count else "conv" for count in heads]
    return {"layer_types": kinds, "num_key_value_heads": max(heads)} if heads else {}


def _mamba2(settings: Mapping[str, object], names: Collection[str]) -> Values:
    keys = ("embedding_length", "ssm.inner_size", "ssm.time_step_rank")
    width, inner, heads = (value if type(value := settings.get(key)) is int else 1 for key in keys)
    return {"expand": inner // width, "head_dim": inner // heads}


def jamba(settings: Mapping[str, object], names: Collection[str]) -> Values:
    """Which blocks attend, and which are mixtures: every so many."""
    heads = _heads(settings)
    routers = [f"blk.{index}.ffn_gate_inp.weight" in names for index in range(len(heads))]
    counts = {"num_key_value_heads": max(heads)} if heads else {}
    return counts | _every("attn_layer", [count > 0 for count in heads]) | _every("expert_layer", routers)


def _heads(settings: Mapping[str, object]) -> Sequence[int]:
    """The heads of keys of each block, none where it does not attend."""
    count, each = settings.get("block_count"), settings.get("attention.head_count_kv")
    if isinstance(each, tuple):
        return each
    return [each] * count if isinstance(each, int) and isinstance(count, int) else []


def _every(key: str, chosen: Sequence[bool]) -> Values:
    """The first of the ``chosen`` blocks, and how many blocks the next is behind it."""
    count = len(chosen)
    first, second = [*(place for place, one in enumerate(chosen) if one), count, 2 * count + 1][:2]
    return {f"{key}_offset": first, f"{key}_period": max(second - first, first + 1)}


STATES = {
    "lfm2": ConfigRow(
        "lfm2", _OF_LFM2, implies={"conv_bias": False, "block_auto_adjust_ff_dim": False}, further=_lfm2
    ),
    "mamba": ConfigRow("mamba", _OF_MAMBA | {"ssm.time_step_rank": "time_step_rank"}),
    "mamba2": ConfigRow(
        "mamba2",
        _OF_MAMBA | {"ssm.time_step_rank": "num_heads", "ssm.group_count": "n_groups"},
        implies={"time_step_limit": [0.0, inf]},
        further=_mamba2,
    ),
    "jamba": ConfigRow("jamba", OF_JAMBA, implies={"num_experts": 1}, further=jamba),
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


def _modernbert(settings: Mapping[str, object], names: Collection[str]) -> Values:
    """What files say since 2026: the activation, and of each block whether it has a window."""
    activation, local = settings.get("hidden_act"), settings.get("attention.sliding_window_pattern")
    found: Values = {"hidden_activation": activation} if isinstance(activation, str) else {}
    if isinstance(local, tuple):
        found["layer_types"] = ["sliding_attention" if one else "full_attention" for one in local]
    return found


def _t5(settings: Mapping[str, object], names: Collection[str]) -> Values:
    return {"feed_forward_proj": "gated-gelu" if "enc.blk.0.ffn_gate.weight" in names else "relu"}


STACKS = {
    "bert": ConfigRow("bert", _OF_BERT),
    "nomic-bert": ConfigRow("nomic_bert", _OF_BERT),
    "modern-bert": ConfigRow("modernbert", _OF_MODERNBERT, further=_modernbert),
    "eurobert": ConfigRow(
        "eurobert", NO_WINDOW, implies={"attention_bias": False, "mlp_bias": False, "hidden_act": "silu"}
    ),
    # It scales no logits: what files hold of models that do is in the last norm, or is not there.
    "t5": ConfigRow("t5", _OF_T5, implies={"scale_decoder_outputs": False}, further=_t5),
}
