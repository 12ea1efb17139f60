"""The pico models that are compressed, with random weights of a fixed seed, and the texts: made once in a
folder, so that every state of the code reads the same bytes.
"""

from __future__ import annotations

import json
import random
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .pico_tokenizers import save_tokenizer

WORDS = """the river ran under old stone bridges while merchants counted copper coins and children watched
boats drift slowly toward the harbour where engineers measured tides winds currents and the weight of every
cargo loaded""".split()
LABELS = ("calm", "storm", "fog")

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

# Name → family, what its config says besides, and how it is saved.
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
POOLERLESS = ("deberta-v2", "distilbert", "electra", "eurobert", "modernbert")
POOLED = ("albert", "bert", "roberta", "xlm-roberta", "camembert", "mpnet", "nomic_bert", "gte")
ENCODERS = (*POOLERLESS, *POOLED)
# Those that transformers has no Auto class for that keeps what is behind the states.
TOWERS = {
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "clip_text_model": "CLIPTextModelWithProjection",
    "siglip_vision_model": "SiglipVisionModel",
    "siglip_text_model": "SiglipTextModel",
}
HEARS = ("whisper",)
READ_IMAGES = ("vit", "dinov2", "clip_vision_model", "siglip_vision_model")
PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
KINDS = dict.fromkeys((*ENCODERS, *TOWERS, *READ_IMAGES), "encoder") | dict.fromkeys(
    ("t5", "mt5", "bart", "marian", *HEARS), "encoder_decoder"
)
AUTO = {
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModel",
    "encoder_decoder": "AutoModelForSeq2SeqLM",
}
# They serve single cases only.
HELD_BACK = ("llama-small", "llama-wide")


def make_subjects(folder: Path, names: Iterable[str]) -> None:
    """The named models in ``folder/models`` and all texts in ``folder/text``, unless they are there."""
    _texts(folder / "text")
    names = list(names)
    if any(MODELS[name][0] in READ_IMAGES for name in names):
        _images(folder / "images")
    if any(MODELS[name][0] in HEARS for name in names):
        _sounds(folder / "sounds")
    for name in names:
        made = folder / "models" / f"{name}.made"
        if not made.exists():
            family, changes, form = MODELS[name]
            save_pico(folder / "models" / name, family, changes, **form)
            made.touch()


def _kind(family: str) -> str:
    return KINDS.get(family, "decoder")


def _sentences(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=60)) + "." for _ in range(count)]


def _texts(folder: Path) -> None:
    if folder.exists():
        return
    folder.mkdir(parents=True)
    prose = _sentences(120, seed=1)
    (folder / "prose.txt").write_text("\n\n".join(prose), encoding="utf-8")
    labelled = [
        {"text": text, "label": LABELS[index % 3], "other": text.upper()} for index, text in enumerate(prose)
    ]
    chats = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]}
        for text in prose
    ]
    files: dict[str, Sequence[object]] = {"labelled": labelled, "chats": chats}
    for name, rows in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def _images(folder: Path) -> None:
    if folder.exists():
        return
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    generator = np.random.default_rng(1)
    for number in range(16):
        pixels = generator.integers(0, 256, (40 + number, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")


def _sounds(folder: Path) -> None:
    if folder.exists():
        return
    import numpy as np

    folder.mkdir(parents=True)
    generator = np.random.default_rng(1)
    for number, said in enumerate(_sentences(16, seed=2)):
        codes = generator.normal(0, 3000, 8000 + 900 * number).astype("<i2")
        with wave.open(str(folder / f"{number:02d}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(codes.tobytes())
        (folder / f"{number:02d}.txt").write_text(" ".join(said.split()[:20]), encoding="utf-8")


def save_pico(
    folder: Path,
    family: str,
    changes: dict[str, Any],
    *,
    dtype: str = "float32",
    shard: str | None = None,
    labels: bool = False,
    by_token: bool = False,
    pooling: bool = False,
) -> None:
    """Save a model of ``family`` with its tokenizer; ``changes`` go to its config. One with ``labels`` is a
    classifier of texts, or ``by_token``.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {}
    if family in READ_IMAGES:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR), encoding="utf-8")
    else:
        settings["vocab_size"] = save_tokenizer(folder, _kind(family), _sentences(50, seed=0))
    if family in HEARS:
        (folder / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR), encoding="utf-8")
    settings |= DECODER | changes if _kind(family) == "decoder" else changes
    if family in ("falcon", "bloom", "mpt"):
        del settings["head_dim"]  # their configs derive it
    if labels:
        settings["id2label"] = dict(enumerate(LABELS))
    head = f"AutoModelFor{'Token' if by_token else 'Sequence'}Classification"
    plain = "AutoModelForSpeechSeq2Seq" if family in HEARS else AUTO[_kind(family)]
    auto: Any = getattr(transformers, head if labels else plain)
    bare = family in (*ENCODERS, "vit") and family not in POOLERLESS and not labels
    options = {"add_pooling_layer": False} if bare else {}
    config = transformers.AutoConfig.for_model(family, **settings)
    if family in TOWERS:
        model = getattr(transformers, TOWERS[family])(config)
    else:
        model = auto.from_config(config, **options)
    _randomise(model)
    model.to(getattr(torch, dtype)).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    if pooling:
        _pool(folder)


def _randomise(model: Any) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    around_zero = model.config.model_type.startswith(("gemma", "nemotron"))  # how norms are stored
    if model.config.model_type == "mt5":  # whose head is its own
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(0.2 * noise + (0 if around_zero else 1))
    if getattr(model.config, "tie_word_embeddings", False):
        model.tie_weights()


def _pool(folder: Path) -> None:
    """The files by which sentence-transformers says how an encoder's states become an embedding."""
    stages = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(stages), encoding="utf-8")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    mode = json.dumps({"pooling_mode_mean_tokens": True})
    (folder / "1_Pooling" / "config.json").write_text(mode, encoding="utf-8")
