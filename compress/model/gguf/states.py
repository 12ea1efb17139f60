"""The configs of families whose blocks mix tokens by a state, a row for each of llama.cpp's names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf

from .configs import ConfigRow, Named, Values

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
