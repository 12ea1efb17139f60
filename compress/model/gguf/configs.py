"""The config of a model from the settings of its GGUF file, a row for each of llama.cpp's names.

What a row leaves out has transformers' default; the anatomy that comes of it is held against what llama.cpp
computes of the family, and against the numbers and the tensors of the file.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .architecture import DISTANCES, ENCODES, LOCAL_ROPE, TWO_STACKS, GgufArchitecture
from .families import ARCHITECTURES

# Of a setting, what configs call it.
_USUAL = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "attention.sliding_window": "sliding_window",
    "logit_scale": "logit_scale",
}
YARN_LOGARITHM = "rope.scaling.yarn_log_multiplier"
_DIGITS = 6  # of a number in float32
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
_PAD = {"pad_token_id": "padding_token_id"}
_FIRST_BIAS = "blk.0.attn_q.bias"
Values = dict[str, Any]
Named = dict[str, str | None]


@dataclass(frozen=True)
class ConfigRow:
    """The ``family``; what it calls ``named`` settings that have no usual name, or another (None: it has no
    place for it); the key that says whether q, k and v have ``biases``; and what llama.cpp's arithmetic
    ``implies``. Positions are ``partial`` where a config says which part of a head they turn. ``renamed`` are
    tensors that a checkpoint has by another name than transformers' module. ``further`` are keys that follow
    from the settings, or the names of tensors, in the family alone.
    """

    family: str
    named: Mapping[str, str | None] = field(default_factory=dict)
    biases: str | None = None
    implies: Mapping[str, Any] = field(default_factory=dict)
    partial: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    further: Callable[[Mapping[str, object], Collection[str]], Values] | None = None

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder."""
        return ENCODES in ARCHITECTURES[self.family].needs

    @property
    def two_stacks(self) -> bool:
        """Whether it is an encoder with a decoder behind it."""
        return TWO_STACKS in ARCHITECTURES[self.family].needs


_OF_GPT2 = {
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "attention.head_count": "n_head",
    "attention.head_count_kv": None,
    "attention.key_length": None,
    "feed_forward_length": "n_inner",
    "context_length": "n_positions",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_OF_BLOOM = _OF_GPT2 | {
    "embedding_length": "hidden_size",
    "feed_forward_length": None,
    "context_length": "seq_length",
}
_OF_MPT = _OF_GPT2 | {
    "embedding_length": "d_model",
    "block_count": "n_layers",
    "attention.head_count": "n_heads",
    "feed_forward_length": None,
    "context_length": "max_seq_len",
}
_OF_FALCON = {
    "attention.head_count_kv": "num_kv_heads",
    "attention.key_length": None,
    "feed_forward_length": "ffn_hidden_size",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
NO_WINDOW: Named = {"attention.sliding_window": None}
OF_GRANITE: Named = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}
ROWS = {
    "llama": ConfigRow("llama", NO_WINDOW),
    "qwen2": ConfigRow("qwen2", NO_WINDOW),
    "qwen3": ConfigRow("qwen3", NO_WINDOW, implies={"attention_bias": False}),
    "gemma": ConfigRow("gemma"),
    "gemma2": ConfigRow("gemma2"),
    "gemma3": ConfigRow("gemma3_text"),
    "smollm3": ConfigRow("smollm3", NO_WINDOW),
    "granite": ConfigRow("granite", OF_GRANITE),
    "olmo2": ConfigRow("olmo2", {"attention.key_length": None}),
    "exaone4": ConfigRow("exaone4", implies={"sliding_window": None}),
    "glm4": ConfigRow("glm4", biases="attention_bias", partial=True),
    "ernie4_5": ConfigRow("ernie4_5", implies={"use_bias": False}),
    "starcoder2": ConfigRow("starcoder2", {"attention.layer_norm_epsilon": "norm_epsilon"}),
    "stablelm": ConfigRow("stablelm", biases="use_qkv_bias", partial=True),
    "nemotron": ConfigRow("nemotron", {"attention.layer_norm_epsilon": "norm_eps"}, partial=True),
    "phi2": ConfigRow("phi", partial=True),
    "phi3": ConfigRow("phi3", partial=True),
    "gptneox": ConfigRow("gpt_neox", partial=True, renamed={"lm_head.weight": "embed_out.weight"}),
    "falcon": ConfigRow("falcon", _OF_FALCON, implies={"alibi": False, "parallel_attn": True}),
    "bloom": ConfigRow("bloom", _OF_BLOOM),
    "mpt": ConfigRow("mpt", _OF_MPT, implies={"attn_config": {"alibi": True}}),
    "command-r": ConfigRow("cohere", implies={"use_qk_norm": False}),
    "cohere2": ConfigRow("cohere2"),
    "gpt2": ConfigRow("gpt2", _OF_GPT2),
}


def config_of(
    row: ConfigRow, settings: Mapping[str, object], special: Mapping[str, object], names: Mapping[str, int]
) -> Values:
    """What ``config.json`` says of a model.

    Args:
        row: that of the family.
        settings: its own, without llama.cpp's name of it before theirs.
        special: the tokenizer's settings, of which the ids of special tokens are some.
        names: the tensors of the file, with the number of weights in each.

    Returns:
        Keys and values of the config, ``model_type`` among them; a setting that is no number is left out.
    """
    known: dict[str, str | None] = {**_USUAL, **row.named}
    values: Values = {"model_type": row.family, **row.implies}
    for setting, key in known.items():
        if key is not None and _is_number(stated := settings.get(setting)):
            values[key] = stated
    values |= {key: special[_PAD.get(key, key)] for key in _SPECIAL if _PAD.get(key, key) in special}
    if row.biases is not None:
        values[row.biases] = _FIRST_BIAS in names
    if row.further is not None:
        values |= row.further(settings, names)
    width = settings.get("embedding_length")
    if isinstance(width, int) and width > 0 and (table := names.get("token_embd.weight")):
        values["vocab_size"] = table // width
        if types := names.get("token_types.weight"):
            values["type_vocab_size"] = types // width
    alone = ARCHITECTURES[row.family].head == "embedding" or "output.weight" not in names
    return _of_family(row, values, settings, names) | {"tie_word_embeddings": alone}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_family(
    row: ConfigRow, values: Values, settings: Mapping[str, object], names: Collection[str]
) -> Values:
    """``values`` with what follows from several settings, or from the tensors that are there."""
    heads, width = settings.get("attention.head_count"), settings.get("embedding_length")
    base, wide = settings.get("rope.freq_base", 10000.0), settings.get("feed_forward_length")
    if not isinstance(heads, int) or not isinstance(width, int) or not 0 < heads <= width:
        return values
    known = ARCHITECTURES[row.family]
    if known.plain_every == 1 or DISTANCES in known.needs:  # no block has positions
        return values
    size = settings.get("attention.key_length")
    size = size if isinstance(size, int) and size > 0 else width // heads
    rope: Values = {"rope_type": "default", "rope_theta": base}
    stretched = _stretched(settings, known)
    if row.partial and isinstance(turned := settings.get("rope.dimension_count"), int):
        rope["partial_rotary_factor"] = turned / size
    if row.family.startswith("granite"):
        values.setdefault("attention_multiplier", size**-0.5)
    if row.family in ("gemma2", "gemma3_text"):
        at = known.wide_at == settings.get("block_count")
        values["query_pre_attn_scalar"] = width // heads if at else size
    if LOCAL_ROPE in known.holds:
        whole = rope | stretched
        local = {"rope_type": "default", "rope_theta": settings.get("rope.freq_base_swa", 10000.0)}
        return values | {"rope_parameters": {"full_attention": whole, "sliding_attention": local}}
    if row.encodes and known.table:
        return values
    if row.family == "exaone4" and isinstance(count := settings.get("block_count"), int):
        values["layer_types"] = ["full_attention"] * count
    if row.family == "mpt" and isinstance(wide, int):
        values["expansion_ratio"] = wide // width
    if row.family == "falcon":
        values["new_decoder_architecture"] = "blk.0.attn_norm_2.weight" in names
        values["multi_query"] = values.get("num_kv_heads") == 1
    if row.family in ("gpt_neox", "stablelm"):
        values["use_parallel_residual"] = settings.get("use_parallel_residual", row.family == "gpt_neox")
    return values | {"rope_parameters": rope | stretched}


def _stretched(settings: Mapping[str, object], known: GgufArchitecture) -> Values:
    """Positions that are stretched by a factor, in one of the ways that llama.cpp reads of a family."""
    kind, factor = settings.get("rope.scaling.type"), settings.get("rope.scaling.factor")
    if kind not in known.stretches or not isinstance(factor, float) or factor <= 1:
        return {}
    found: Values = {"rope_type": kind, "factor": factor}
    if kind != "yarn":
        return found
    length = settings.get("rope.scaling.original_context_length", settings.get("context_length"))
    share = settings.get(YARN_LOGARITHM)
    if known.log_times is not None and isinstance(share, float):
        found |= dict.fromkeys(("mscale", "mscale_all_dim"), round(share / known.log_times, _DIGITS))
    return found | {
        "original_max_position_embeddings": length,
        "beta_fast": settings.get("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": settings.get("rope.scaling.yarn_beta_slow", 1.0),
    }
