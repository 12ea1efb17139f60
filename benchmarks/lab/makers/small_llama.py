"""A small Llama with random weights and a tokenizer of its own, learned from the Wikipedia demo corpus: what
``distill`` with ``cross_entropy`` trains from scratch.

A decoder in full precision that is free to use comes with no package, so that studies make one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....files.storage import write_json

if TYPE_CHECKING:
    from ..study.sources import Sources

PICO: dict[str, Any] = {"vocabulary": 300, "hidden": 64, "ffn": 128, "blocks": 2}


@dataclass(frozen=True)
class LlamaShape:
    """Dimensions; heads have 64 channels, half of them are key heads; embeddings are tied."""

    vocabulary: int = 4096
    hidden: int = 256
    ffn: int = 768
    blocks: int = 6

    @property
    def key_channels(self) -> int:
        """Outputs of the key and of the value projection."""
        return 64 * max(1, self.hidden // 128)


def make(target: Path, sources: Sources, *, text: str = "wikipedia", **shape: int) -> None:
    """Write the checkpoint with random weights of that :class:`LlamaShape`, its tokenizer learned from
    ``text``.
    """
    save_small_llama(target, LlamaShape(**shape), sources.documents(text))


def config(shape: LlamaShape) -> dict[str, Any]:
    """``config.json``."""
    heads = shape.hidden // 64
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": shape.key_channels // 64,
        "head_dim": 64,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "dtype": "float32",
    }


def save_tokenizer(directory: Path, size: int, documents: list[str]) -> None:
    """A byte-level BPE of ``size`` entries, learned from ``documents``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    (directory / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 2048,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def save_small_llama(directory: Path, shape: LlamaShape, documents: list[str], seed: int = 0) -> None:
    """Write the checkpoint with random weights."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)

    def drawn(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator).mul_(scale * columns**-0.5)

    tensors = {"model.embed_tokens.weight": drawn(shape.vocabulary, shape.hidden)}
    deep = (
        2 * shape.blocks
    ) ** -0.5  # what is added to the residual stream, so that it does not grow with the depth
    for index in range(shape.blocks):
        block = {
            "self_attn.q_proj": drawn(shape.hidden, shape.hidden),
            "self_attn.k_proj": drawn(shape.key_channels, shape.hidden),
            "self_attn.v_proj": drawn(shape.key_channels, shape.hidden),
            "self_attn.o_proj": drawn(shape.hidden, shape.hidden, deep),
            "mlp.gate_proj": drawn(shape.ffn, shape.hidden),
            "mlp.up_proj": drawn(shape.ffn, shape.hidden),
            "mlp.down_proj": drawn(shape.hidden, shape.ffn, deep),
            "input_layernorm": torch.ones(shape.hidden),
            "post_attention_layernorm": torch.ones(shape.hidden),
        }
        tensors |= {f"model.layers.{index}.{name}.weight": value for name, value in block.items()}
    tensors["model.norm.weight"] = torch.ones(shape.hidden)
    directory.mkdir(parents=True)
    save_tokenizer(directory, shape.vocabulary, documents)
    write_json(directory / "config.json", config(shape))
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
