"""How a family's config names the sizes that pruning changes; a family file may say its own as ``SIZES``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SizeKeys:
    """Config keys; the defaults are Llama's.

    Attributes:
        heads: of query heads, key/value heads and channels of a head; None where transformers derives the
            size of a head from the hidden size, so that a config cannot say that heads are gone.
        twin: ``model_type`` and architecture of the same network without biases, where transformers refuses
            hidden sizes under the family's own name that are no multiple of the heads.
        experts: how the number of experts may be called: all that are there say it.
        decoder_layers: of an encoder–decoder, whose ``layers`` are the encoder's.
    """

    ffn: str = "intermediate_size"
    layers: str = "num_hidden_layers"
    heads: tuple[str, str, str] | None = ("num_attention_heads", "num_key_value_heads", "head_dim")
    twin: tuple[str, str] | None = None
    experts: tuple[str, ...] = ()
    decoder_layers: str | None = None
