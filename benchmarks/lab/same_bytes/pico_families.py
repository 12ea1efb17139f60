"""The families of the pico models: what the config of each says beside, or against, the sizes that all have,
and how it is saved.
"""

from typing import Any

DECODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
    "pad_token_id": 0,
}
DISTILBERT: dict[str, Any] = {
    "dim": 64,
    "hidden_dim": 128,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 64}
MIXTRAL = {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": None}
GEMMA2 = {
    "head_dim": 32,
    "query_pre_attn_scalar": 24,
    "sliding_window": 24,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 5.0,
}
NEOX = {"num_attention_heads": 2, "head_dim": 32, "rotary_pct": 0.5, "tie_word_embeddings": False}
OLMOE = {"num_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 32}
QWEN3_MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
QWEN2_MOE = QWEN3_MOE | {"shared_expert_intermediate_size": 64}
GEMMA3 = {
    "head_dim": 32,
    "query_pre_attn_scalar": 24,
    "sliding_window": 24,
    "sliding_window_pattern": 2,
}
GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.5,
    "logits_scaling": 2.0,
}
GPTJ = {"n_inner": 128, "rotary_dim": 16, "num_attention_heads": 2, "tie_word_embeddings": False}
FALCON = {"ffn_hidden_size": 128, "num_attention_heads": 2}
COHERE2 = {"logit_scale": 0.5, "sliding_window": 24, "sliding_window_pattern": 2}
STABLELM = {"head_dim": None, "num_attention_heads": 2, "partial_rotary_factor": 0.5}
# Whose special tokens are of the published vocabulary.
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3, "mask_token_id": 4}
MODERNBERT = ENCODER | SPECIAL | {"local_attention": 24, "num_hidden_layers": 3}
EUROBERT = ENCODER | SPECIAL | {"num_key_value_heads": 2}
ROBERTA_LIKE = ENCODER | {"pad_token_id": 1}
DEBERTA = ENCODER | {
    "relative_attention": True,
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
}
PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
EXTRACTOR = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16, "chunk_length": 2}
WHISPER: dict[str, Any] = {
    "d_model": 32,
    "num_mel_bins": 16,
    "max_source_positions": 100,
    "max_target_positions": 64,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 96,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "begin_suppress_tokens": None,
}
BART: dict[str, Any] = {
    "d_model": 32,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "forced_eos_token_id": None,
    "max_position_embeddings": 160,
    "tie_word_embeddings": True,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 96,
}
VISION = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
CLIP_TEXT = ENCODER | {"max_position_embeddings": 40, "bos_token_id": 2, "eos_token_id": 3}
DEEPSEEK = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 32,
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
    "tie_word_embeddings": False,
}
GPT_OSS = {
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "sliding_window": 24,
    "swiglu_limit": 0.7,
    "intermediate_size": 32,
    "tie_word_embeddings": False,
}
LFM2 = {"num_hidden_layers": 4, "layer_types": ["conv", "conv", "full_attention", "conv"]}
MAMBA2 = {"num_heads": 8, "head_dim": 16, "n_groups": 2, "state_size": 8, "chunk_size": 16}
JAMBA = {
    "num_hidden_layers": 4,
    "attn_layer_period": 3,
    "attn_layer_offset": 1,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "mamba_d_state": 8,
    "tie_word_embeddings": False,
}
BIASES = {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}

# Name → family, what its config says beside that, and how it is saved.
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", {}, {}),
    "llama-small": ("llama", {"hidden_size": 32, "num_hidden_layers": 2, "head_dim": 8}, {}),
    "llama-biases": ("llama", BIASES, {"dtype": "bfloat16", "shard": "50KB"}),
    "llama-wide": ("llama", WIDE, {}),
    "mistral": ("mistral", {"sliding_window": 24}, {"dtype": "float16"}),
    "mixtral": ("mixtral", MIXTRAL, {}),
    "qwen2": ("qwen2", {}, {}),
    "qwen3": ("qwen3", {}, {}),
    "qwen3_moe": ("qwen3_moe", QWEN3_MOE, {}),
    "qwen2_moe": ("qwen2_moe", QWEN2_MOE, {}),
    "olmoe": ("olmoe", OLMOE, {}),
    "deepseek_v3": ("deepseek_v3", DEEPSEEK, {}),
    "gpt_oss": ("gpt_oss", GPT_OSS, {}),
    "lfm2": ("lfm2", LFM2, {}),
    "mamba": ("mamba", {"state_size": 8}, {}),
    "mamba2": ("mamba2", MAMBA2, {}),
    "jamba": ("jamba", JAMBA, {}),
    "granitemoe": ("granitemoe", {"num_local_experts": 6, "num_experts_per_tok": 2}, {}),
    "ministral": ("ministral", {"sliding_window": 24}, {}),
    "ministral3": ("ministral3", {}, {}),
    "gemma": ("gemma", {"head_dim": 32, "num_key_value_heads": 1}, {}),
    "gemma2": ("gemma2", GEMMA2, {}),
    "bitnet": ("bitnet", {"num_key_value_heads": 1}, {}),
    "gpt2": ("gpt2", {"n_inner": 128}, {}),
    "gpt_neox": ("gpt_neox", NEOX, {}),
    "opt": ("opt", {"ffn_dim": 128}, {}),
    "phi": ("phi", {"head_dim": 32, "partial_rotary_factor": 0.5, "tie_word_embeddings": False}, {}),
    "phi3": ("phi3", {"sliding_window": None}, {}),
    "gemma3": ("gemma3_text", GEMMA3, {}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2}, {}),
    "granite": ("granite", GRANITE, {}),
    "stablelm": ("stablelm", STABLELM, {}),
    "starcoder2": ("starcoder2", {"head_dim": None, "sliding_window": 24}, {}),
    "ernie4_5": ("ernie4_5", {}, {}),
    "gptj": ("gptj", GPTJ, {}),
    "helium": ("helium", {"num_key_value_heads": 4}, {}),
    "falcon": ("falcon", FALCON, {}),
    "bloom": ("bloom", {"seq_length": 512}, {}),
    "mpt": ("mpt", {"max_seq_len": 512}, {}),
    "cohere": ("cohere", {"logit_scale": 0.5}, {}),
    "cohere2": ("cohere2", COHERE2, {}),
    "nemotron": ("nemotron", {"head_dim": 32, "num_attention_heads": 2}, {}),
    "glm4": ("glm4", {"head_dim": 32, "num_attention_heads": 2}, {}),
    "olmo2": ("olmo2", {}, {}),
    "olmo3": ("olmo3", {"sliding_window": 24}, {}),
    "exaone4": ("exaone4", {"sliding_window": 24, "sliding_window_pattern": 2}, {}),
    "bert": ("bert", ENCODER, {"pooling": True}),
    "bert-classifier": ("bert", ENCODER, {"labels": True}),
    "roberta": ("roberta", ENCODER, {"pooling": True}),
    "roberta-classifier": ("roberta", ENCODER, {"labels": True}),
    "xlm_roberta": ("xlm-roberta", ROBERTA_LIKE, {"pooling": True}),
    "camembert": ("camembert", ROBERTA_LIKE, {"pooling": True}),
    "albert": ("albert", {**ENCODER, "embedding_size": 32}, {"pooling": True}),
    "electra": ("electra", {**ENCODER, "embedding_size": 32}, {"pooling": True}),
    "mpnet": ("mpnet", ROBERTA_LIKE, {"pooling": True}),
    "modernbert": ("modernbert", MODERNBERT, {"pooling": True}),
    "eurobert": ("eurobert", EUROBERT, {"pooling": True}),
    "nomic_bert": ("nomic_bert", ENCODER, {"pooling": True}),
    "gte": ("gte", ENCODER, {"pooling": True}),
    "deberta": ("deberta-v2", DEBERTA, {"pooling": True}),
    "distilbert": ("distilbert", DISTILBERT, {"pooling": True}),
    "distilbert-classifier": ("distilbert", DISTILBERT, {"labels": True}),
    "bart": ("bart", BART, {}),
    "marian": ("marian", BART, {}),
    "whisper": ("whisper", WHISPER, {}),
    "vit": ("vit", VISION | {"intermediate_size": 128}, {}),
    "dinov2": ("dinov2", VISION | {"mlp_ratio": 2}, {}),
    "clip_image": ("clip_vision_model", VISION | {"intermediate_size": 128, "projection_dim": 48}, {}),
    "clip_text": ("clip_text_model", CLIP_TEXT | {"projection_dim": 48}, {}),
    "siglip_image": ("siglip_vision_model", VISION | {"intermediate_size": 128}, {}),
    "siglip_text": ("siglip_text_model", CLIP_TEXT, {}),
    "t5": ("t5", {**T5, "tie_word_embeddings": True}, {}),
    "mt5": ("mt5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, {}),
}
# They serve single cases only.
HELD_BACK = ("llama-small", "llama-wide")
