"""The configs of encoders, alone or before a decoder, a row for each of llama.cpp's names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .configs import NO_WINDOW, ConfigRow, Named, Values

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
