"""The families of the matrix: each a pico model of a kind, and what its config says in addition to the sizes
of all.
"""

from typing import Any

from ....compress.numbers.scheme import GGUF
from ..same_bytes import pico_families as pico
from .kinds import (
    DECODER,
    ENCODER,
    IMAGE_TOWER,
    IMAGES,
    MIXTURE,
    SPEECH,
    STATES,
    TAGGER,
    TEXT_TO_TEXT,
    TEXT_TOWER,
)

SMALL_HEAD = "with a head of 4 bits"
AS_THERE = "as llama.cpp has it"
PIECES = "of pieces"  # its tokenizer
EMBEDS = "that embeds"
WIDE_HEADS = "with wide heads"  # vLLM has no kernels for narrow ones on CPUs

_TWO_HEADS, _OWN_HEAD = {"head_dim": 32, "num_attention_heads": 2}, {"tie_word_embeddings": False}
_WIDE = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}  # rows of whole super-blocks
_GQA_SCALE = {"query_pre_attn_scalar": 32}  # the width of a head
_SERVED = ("llama", "mistral", "qwen2", "qwen3", "phi3")
_PHI = {"head_dim": 32, "partial_rotary_factor": 0.5, "tie_word_embeddings": False}
_ALTERNATING = {"sliding_window": 64, "sliding_window_pattern": 2}
_NO_WINDOWS = {"sliding_window": None, "layer_types": ["full_attention"] * 3}
_BY_FOUR = {"sliding_window": 64, "sliding_window_pattern": 4}
_OF_SIX = {"sliding_window_pattern": 6, "num_hidden_layers": 7}
_SIX_EXPERTS, _NORMALIZED = {"num_local_experts": 6, "num_experts_per_tok": 2}, {"norm_topk_prob": True}
# Each token goes to all experts, so that what a client rounds does not change which are chosen.
_ALL_OF_SIX = _WIDE | {"moe_intermediate_size": 256, "num_experts_per_tok": 6}
_ALL_OF_EIGHT = {"num_experts_per_tok": 8, "topk_group": 4} | dict.fromkeys(
    ("hidden_size", "intermediate_size", "moe_intermediate_size", "q_lora_rank", "kv_lora_rank"), 256
)
_PLAIN = {"rope_type": "default", "rope_theta": 150_000.0}
# As the released DeepSeek-V3 has it, but for the length that it begins with.
_STRETCHED = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 40.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
_CLAMPED = {"swiglu_limit": 7.0, "rope_parameters": _PLAIN}
_SMALL_EMBEDDING = pico.ENCODER | {"embedding_size": 32}
_IMAGE_TOWER = pico.VISION | {"intermediate_size": 128}
# Of encoders and T5 in GGUF: with the tokenizers that these are published with.
TOKENIZERS = {
    **dict.fromkeys(("bert", "distilbert", "electra", "nomic_bert"), "bert"),
    **dict.fromkeys(("roberta", "modernbert", "eurobert"), "bytes"),
    **dict.fromkeys(("xlm-roberta", "camembert"), "unigram"),
    **dict.fromkeys(("t5", "mt5"), "unigram_t5"),
}
_FROM_TWO = pico.ENCODER | {"pad_token_id": 1, "max_position_embeddings": 514}  # where positions begin
_IN_GGUF: dict[str, dict[str, Any]] = {
    "bert": pico.ENCODER,
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), _FROM_TWO),
    "electra": pico.ENCODER | {"embedding_size": 64},
    "distilbert": pico.DISTILBERT | {"max_position_embeddings": 512},
    "modernbert": pico.MODERNBERT | {"num_hidden_layers": 4},
    "eurobert": pico.EUROBERT,
    "nomic_bert": pico.ENCODER,
}
_T5_HEAD = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_STATES: dict[str, dict[str, Any]] = {"lfm2": pico.LFM2, "mamba": {"state_size": 8}, "mamba2": pico.MAMBA2}
_KINDS = ("F32", "Q4_0")  # of GGUF files: other clients have the row without
# Family, or family and what is particular of the row → kind and settings.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (DECODER, {}),
    "mistral": (DECODER, {"sliding_window": 64}),
    "ministral": (DECODER, {"sliding_window": 64}),
    "ministral3": (DECODER, {}),
    "qwen2": (DECODER, {}),
    "qwen3": (DECODER, {}),
    "gemma": (DECODER, {"head_dim": 32, "num_key_value_heads": 1}),
    "gemma2": (DECODER, pico.GEMMA2),
    "gemma3_text": (DECODER, pico.GEMMA3),
    "phi": (DECODER, _PHI),
    "phi3": (DECODER, {}),
    "smollm3": (DECODER, {"no_rope_layer_interval": 4, "num_hidden_layers": 4}),
    "granite": (DECODER, pico.GRANITE),
    "ernie4_5": (DECODER, {}),
    "falcon": (DECODER, pico.FALCON),
    "bloom": (DECODER, {"seq_length": 512}),
    "mpt": (DECODER, {"max_seq_len": 512}),
    "helium": (DECODER, {"num_key_value_heads": 4}),
    "cohere": (DECODER, {"logit_scale": 0.5}),
    "cohere2": (DECODER, {"logit_scale": 0.5} | _ALTERNATING),
    "nemotron": (DECODER, _TWO_HEADS | _OWN_HEAD),
    "glm4": (DECODER, _TWO_HEADS),
    "olmo2": (DECODER, _OWN_HEAD),
    "olmo3": (DECODER, {"sliding_window": 64}),
    "exaone4": (DECODER, _ALTERNATING),
    "gptj": (DECODER, {"n_inner": 128, "rotary_dim": 16, "tie_word_embeddings": False}),
    "stablelm": (DECODER, _TWO_HEADS | _OWN_HEAD | {"partial_rotary_factor": 0.5}),
    "starcoder2": (DECODER, {"head_dim": None}),
    "gpt2": (DECODER, {"n_inner": 128}),
    "gpt_neox": (DECODER, pico.NEOX),
    "opt": (DECODER, {"ffn_dim": 128}),
    "bitnet": (DECODER, {"num_key_value_heads": 1}),
    # As llama.cpp has them: blocks of four, no windows, a head of its own, heads that fill the width.
    "cohere2 of four": (DECODER, {"logit_scale": 0.5, "num_hidden_layers": 4} | _BY_FOUR),
    "exaone4 without windows": (DECODER, _NO_WINDOWS),
    "phi of two heads": (DECODER, _PHI | _TWO_HEADS),
    "olmo3 untied": (DECODER, _OWN_HEAD | {"sliding_window": 64}),
    f"llama {SMALL_HEAD}": (DECODER, {}),
    **{f"{family} {WIDE_HEADS}": (DECODER, _WIDE) for family in _SERVED},
    **{f"llama {scheme.upper()}": (DECODER, _WIDE) for scheme in GGUF},
    "llama Q8_0": (DECODER, {}),
    "gemma Q4_K": (DECODER, _WIDE | {"num_key_value_heads": 1}),
    "gemma Q8_0": (DECODER, {"head_dim": 32, "num_key_value_heads": 1}),
    "falcon Q4_K": (DECODER, {"hidden_size": 256, "ffn_hidden_size": 256}),
    f"gemma {PIECES}": (DECODER, {"head_dim": 32, "num_key_value_heads": 1}),
    f"mistral {PIECES}": (DECODER, {"sliding_window": 64}),
    f"gemma2 {AS_THERE}": (DECODER, pico.GEMMA2 | _GQA_SCALE),
    f"gemma3_text {AS_THERE}": (DECODER, pico.GEMMA3 | _GQA_SCALE | _OF_SIX),
    "mixtral": (MIXTURE, pico.MIXTRAL),
    "qwen2_moe": (MIXTURE, pico.QWEN2_MOE),
    "qwen3_moe": (MIXTURE, pico.QWEN3_MOE),
    "olmoe": (MIXTURE, pico.OLMOE),
    "granitemoe": (MIXTURE, _SIX_EXPERTS),
    "gpt_oss": (MIXTURE, pico.GPT_OSS),
    "deepseek_v3": (MIXTURE, pico.DEEPSEEK),
    f"qwen2_moe {AS_THERE}": (MIXTURE, pico.QWEN2_MOE | _OWN_HEAD),
    f"qwen3_moe {AS_THERE}": (MIXTURE, pico.QWEN3_MOE | _NORMALIZED),
    "granitemoe F32": (MIXTURE, pico.GRANITE | _SIX_EXPERTS),
    f"olmoe {AS_THERE}": (MIXTURE, pico.OLMOE | _OWN_HEAD | {"num_key_value_heads": 4}),
    f"gpt_oss {AS_THERE}": (MIXTURE, pico.GPT_OSS | _CLAMPED),
    **{f"mixtral {scheme.upper()}": (MIXTURE, pico.MIXTRAL | _ALL_OF_SIX) for scheme in GGUF},
    "qwen2_moe Q4_K": (MIXTURE, pico.QWEN2_MOE | _OWN_HEAD | _ALL_OF_SIX),
    "qwen3_moe Q4_K": (MIXTURE, pico.QWEN3_MOE | _NORMALIZED | _ALL_OF_SIX),
    "olmoe Q4_K": (MIXTURE, pico.OLMOE | _OWN_HEAD | {"num_key_value_heads": 4} | _ALL_OF_SIX),
    "granitemoe Q4_K": (MIXTURE, pico.GRANITE | _SIX_EXPERTS | _ALL_OF_SIX),
    "gpt_oss Q4_K": (MIXTURE, pico.GPT_OSS | _CLAMPED | _ALL_OF_SIX),
    "deepseek_v3 F32": (MIXTURE, pico.DEEPSEEK | {"rope_parameters": _STRETCHED}),
    "deepseek_v3 Q4_K": (MIXTURE, pico.DEEPSEEK | _ALL_OF_EIGHT),
    "lfm2": (STATES, pico.LFM2),
    "mamba": (STATES, {"state_size": 8}),
    "mamba2": (STATES, pico.MAMBA2),
    "jamba": (STATES, pico.JAMBA),
    **{f"{family} {kind}": (STATES, settings) for family, settings in _STATES.items() for kind in _KINDS},
    "jamba F32": (STATES, pico.JAMBA),
    "bert": (ENCODER, pico.ENCODER),
    "roberta": (ENCODER, pico.ENCODER),
    "xlm-roberta": (ENCODER, pico.ENCODER),
    "camembert": (ENCODER, pico.ENCODER),
    "albert": (ENCODER, _SMALL_EMBEDDING),
    "electra": (ENCODER, _SMALL_EMBEDDING),
    "mpnet": (ENCODER, pico.ENCODER),
    "distilbert": (ENCODER, pico.DISTILBERT),
    "modernbert": (ENCODER, pico.MODERNBERT),
    "eurobert": (ENCODER, pico.EUROBERT),
    "nomic_bert": (ENCODER, pico.ENCODER),
    "gte": (ENCODER, pico.ENCODER),
    "deberta-v2": (ENCODER, pico.DEBERTA),
    f"qwen3 {EMBEDS}": (ENCODER, {}),
    f"mistral {EMBEDS}": (ENCODER, {"sliding_window": 64}),
    "bert tagger": (TAGGER, pico.ENCODER),
    "xlm-roberta tagger": (TAGGER, pico.ENCODER),
    "distilbert tagger": (TAGGER, pico.DISTILBERT),
    "vit": (IMAGES, _IMAGE_TOWER),
    "dinov2": (IMAGES, pico.VISION | {"mlp_ratio": 2}),
    "clip_vision_model": (IMAGE_TOWER, _IMAGE_TOWER | {"projection_dim": 48}),
    "siglip_vision_model": (IMAGE_TOWER, _IMAGE_TOWER),
    "clip_text_model": (TEXT_TOWER, pico.CLIP_TEXT | {"projection_dim": 48}),
    "siglip_text_model": (TEXT_TOWER, pico.CLIP_TEXT),
    "t5": (TEXT_TO_TEXT, pico.T5 | {"tie_word_embeddings": True}),
    "mt5": (TEXT_TO_TEXT, pico.T5 | _T5_HEAD),
    **{
        f"{family} {scheme}": (ENCODER, settings)
        for family, settings in _IN_GGUF.items()
        for scheme in ("F32", "Q4_0")
    },
    "bert Q8_0": (ENCODER, pico.ENCODER),
    **{f"t5 {scheme}": (TEXT_TO_TEXT, pico.T5 | {"tie_word_embeddings": True}) for scheme in ("F32", "Q4_0")},
    **{f"mt5 {scheme}": (TEXT_TO_TEXT, pico.T5 | _T5_HEAD) for scheme in ("F32", "Q4_0")},
    "bart": (TEXT_TO_TEXT, pico.BART),
    "marian": (TEXT_TO_TEXT, pico.BART),
    "whisper": (SPEECH, pico.WHISPER),
}
