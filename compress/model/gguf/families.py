"""The families that are written as GGUF, a row each, and why others are not."""

from __future__ import annotations

from collections.abc import Iterable

from .architecture import (
    ALTERNATING,
    AROUND,
    ATTENTION_BIASES,
    BEHIND,
    BIASES,
    CAPPED_LOGITS,
    CAPPED_SCORES,
    CLAMPED,
    DISTANCES,
    EMBEDDING_NORM,
    ENCODES,
    EXPERTS,
    FUSED_MLP,
    FUSED_QKV,
    HEAD_NORMS,
    HEADED_STATES,
    LABELS,
    LATE,
    LATENT,
    LAYER_NORMS,
    LOCAL_ROPE,
    NO_GATE,
    NO_MLP,
    NORMALIZED,
    NORMED_SUMS,
    NORMS_OVER_HEADS,
    OFFSET_NORMS,
    PARALLEL,
    PART,
    ROOT_SCALED,
    ROUTER_FORM,
    SCALED_EMBEDDINGS,
    SCALED_LOGITS,
    SCALED_RESIDUALS,
    SCALED_SCORES,
    SHARED,
    SHARED_GATE,
    SHORT_CONVOLUTIONS,
    SINKS,
    SLOPES,
    STATE_SPACES,
    STEP_NORMS,
    TOKEN_TYPES,
    TWO_STACKS,
    GgufArchitecture,
)


def _row(name: str, *holds: str, needs: Iterable[str] = (), **more: object) -> GgufArchitecture:
    """``needs`` are held too."""
    must = frozenset(needs)
    return GgufArchitecture(name, holds=must | set(holds), needs=must, **more)  # type: ignore[arg-type]


_SCALES = (SCALED_SCORES, SCALED_EMBEDDINGS, SCALED_RESIDUALS, SCALED_LOGITS)
_TANH = "gelu_pytorch_tanh"
_BERT = _row(
    *("bert", TOKEN_TYPES, LABELS),
    needs=[ENCODES, ATTENTION_BIASES, BIASES, LAYER_NORMS, NORMED_SUMS, NO_GATE, EMBEDDING_NORM],
    activation="gelu",
    table=True,
    square=True,
    square_keys=True,
)
_T5 = _row(
    *("t5", NO_GATE, SCALED_LOGITS),
    needs=[TWO_STACKS, DISTANCES],
    activation="gelu_new",
    ungated="relu",
    score_scale=1.0,
    folds_logits=True,
    farthest=128,
)
_NOMIC = {
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "attn_output_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_mlp_layernorm": "layer_output_norm",
}
ARCHITECTURES = {
    "llama": _row("llama", neighbours=True, stretches=frozenset({"llama3"})),
    "mistral": _row("llama", neighbours=True),
    "ministral": _row("llama", neighbours=True),
    "ministral3": _row("mistral3", neighbours=True, stretches=frozenset({"yarn"})),
    "qwen2": _row("qwen2", ATTENTION_BIASES),
    "qwen3": _row("qwen3", HEAD_NORMS),
    "gemma": _row("gemma", OFFSET_NORMS, needs=[ROOT_SCALED], activation=_TANH, head="embedding"),
    "gemma2": _row(
        *("gemma2", OFFSET_NORMS),
        needs=[ROOT_SCALED, AROUND, CAPPED_SCORES, CAPPED_LOGITS],
        activation=_TANH,
        head="embedding",
        windows=2,
        wide_at=46,
    ),
    "gemma3_text": _row(
        *("gemma3", OFFSET_NORMS, CAPPED_LOGITS, LOCAL_ROPE),
        needs=[ROOT_SCALED, AROUND, HEAD_NORMS],
        activation=_TANH,
        windows=6,
        wide_at=62,
        stretches=frozenset({"linear"}),
    ),
    "smollm3": _row("smollm3", neighbours=True, plain_every=4),
    "granite": _row("granite", *_SCALES, neighbours=True),
    "olmo2": _row("olmo2", NORMS_OVER_HEADS, BEHIND, head="own", square=True),
    "olmo3": _row("olmo2", NORMS_OVER_HEADS, BEHIND, head="own", square=True),
    "exaone4": _row("exaone4", HEAD_NORMS, BEHIND, windowed_at=64),
    "glm4": _row("glm4", ATTENTION_BIASES, AROUND, FUSED_MLP, PART, neighbours=True),
    "ernie4_5": _row("ernie4_5", neighbours=True),
    "starcoder2": _row("starcoder2", ATTENTION_BIASES, BIASES, LAYER_NORMS, NO_GATE, activation=_TANH),
    "stablelm": _row("stablelm", ATTENTION_BIASES, LAYER_NORMS, PART, head="own"),
    "nemotron": _row("nemotron", LAYER_NORMS, NO_GATE, PART, OFFSET_NORMS, activation="relu2", head="own"),
    "phi": _row(
        *("phi2", ATTENTION_BIASES, BIASES, LAYER_NORMS, NO_GATE, PART, PARALLEL),
        activation="gelu_new",
        head="own",
        square=True,
    ),
    "phi3": _row("phi3", FUSED_QKV, FUSED_MLP, PART),
    "gpt_neox": _row(
        *("gptneox", ATTENTION_BIASES, BIASES, LAYER_NORMS, NO_GATE, PART, PARALLEL, FUSED_QKV),
        activation="gelu",
    ),
    "falcon": _row(
        "falcon", needs=[LAYER_NORMS, NO_GATE, PARALLEL, FUSED_QKV], activation="gelu", square=True
    ),
    "bloom": _row(
        "bloom",
        needs=[ATTENTION_BIASES, BIASES, LAYER_NORMS, NO_GATE, FUSED_QKV, EMBEDDING_NORM, SLOPES],
        activation="gelu_new",
        square=True,
        square_keys=True,
    ),
    "mpt": _row(
        "mpt",
        needs=[LAYER_NORMS, NO_GATE, FUSED_QKV, SLOPES],
        activation="gelu",
        square=True,
        square_keys=True,
    ),
    "cohere": _row("command-r", LAYER_NORMS, PARALLEL, SCALED_LOGITS, neighbours=True, head="embedding"),
    "cohere2": _row(
        *("cohere2", LAYER_NORMS, PARALLEL, SCALED_LOGITS),
        neighbours=True,
        head="embedding",
        plain_every=4,
        windows=4,
        square=True,
    ),
    "gpt2": _row(
        *("gpt2", ATTENTION_BIASES, BIASES, LAYER_NORMS, NO_GATE, FUSED_QKV),
        activation="gelu_new",
        table=True,
        square=True,
    ),
    "mixtral": _row("llama", needs=[EXPERTS, NORMALIZED], neighbours=True),
    "qwen2_moe": _row(
        *("qwen2moe", ATTENTION_BIASES),
        needs=[EXPERTS, SHARED, SHARED_GATE],
        head="own",
        square=True,
    ),
    "qwen3_moe": _row("qwen3moe", needs=[EXPERTS, NORMALIZED, HEAD_NORMS]),
    "olmoe": _row("olmoe", needs=[EXPERTS, NORMS_OVER_HEADS], head="own", square=True, square_keys=True),
    "granitemoe": _row("granitemoe", *_SCALES, needs=[EXPERTS, NORMALIZED], neighbours=True),
    "gpt_oss": _row(
        "gpt-oss",
        needs=[EXPERTS, NORMALIZED, ATTENTION_BIASES, BIASES, SINKS, ALTERNATING, CLAMPED],
        activation="quick_gelu",
        head="own",
        windows=2,
        limit=7.0,
        stretches=frozenset({"yarn"}),
    ),
    "deepseek_v3": _row(
        *("deepseek2", PART, EXPERTS, NORMALIZED, SHARED, ROUTER_FORM),
        needs=[LATENT],
        neighbours=True,
        dense_first=True,
        lite_at=frozenset({26, 27}),
        stretches=frozenset({"yarn"}),
        log_times=0.1,
    ),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"), _BERT),
    "modernbert": _row(
        *("modern-bert", LATE, LOCAL_ROPE, LABELS),
        needs=[ENCODES, LAYER_NORMS, FUSED_QKV, FUSED_MLP, EMBEDDING_NORM],
        activation="gelu",
        windows=3,
        label_activation="gelu",
        label_norm=True,
        label_pooling="mean",
        bare_norms=True,
        first_whole=True,
        square=True,
        square_keys=True,
    ),
    "nomic_bert": _row(
        *("nomic-bert", TOKEN_TYPES),
        needs=[ENCODES, LAYER_NORMS, NORMED_SUMS, EMBEDDING_NORM],
        joined=True,
        called=_NOMIC,
        square=True,
        square_keys=True,
    ),
    "eurobert": _row("eurobert", needs=[ENCODES]),
    **dict.fromkeys(("t5", "mt5"), _T5),
    "lfm2": _row("lfm2", HEAD_NORMS, SHORT_CONVOLUTIONS, square=True),
    "mamba": _row("mamba", needs=[STATE_SPACES, NO_MLP]),
    "mamba2": _row("mamba2", needs=[HEADED_STATES, NO_MLP]),
    "jamba": _row(
        *("jamba", STATE_SPACES, STEP_NORMS, EXPERTS),
        plain_every=1,
        square=True,
        misses="7 to 24 % of the largest in 8 bits and 8 to 35 % in 4, and in float by 0.1 % (pico models)",
    ),
}

_NOT_KNOWN = "llama.cpp has no arithmetic of the family"
_OTHER_FORM = "llama.cpp has another form of it: {}"
# Why families have no row, where that is known.
WITHOUT = {
    **dict.fromkeys(("helium", "opt", "gptj"), _NOT_KNOWN),
    **dict.fromkeys(("albert", "mpnet", "deberta-v2", "bart", "marian", "whisper"), _NOT_KNOWN),
    "gte": "llama.cpp's Nomic-BERT has SiLU in the place of its GELU (`llm_build_bert`)",
    "bitnet": _OTHER_FORM.format("`--format bitnet` writes what transformers loads"),
}
