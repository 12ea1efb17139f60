"""A Llama of any size with random weights, written block by block: what memory and kill checks compress.

    python -m edgepress.benchmarks.lab.makers.random_llama DIRECTORY --hidden 2048 --ffn 5632 --blocks 22

Random weights are as heavy as trained ones; the tokenizer is that of a real model, so that real text can be
used for calibration.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ....compress.model.models import resolve
from ....files.storage import read_json, write_json

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class Size:
    """Dimensions of a Llama with tied embeddings; heads have 64 channels, an eighth of them are key heads."""

    hidden: int
    ffn: int
    blocks: int
    dtype: Literal["bfloat16", "float32"] = "bfloat16"

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.hidden // 64

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return max(1, self.heads // 8)


def block_shapes(size: Size, index: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of one block by their stored names; those of one axis are norms."""
    keys = size.kv_heads * 64
    shapes = {
        "self_attn.q_proj": (size.hidden, size.hidden),
        "self_attn.k_proj": (keys, size.hidden),
        "self_attn.v_proj": (keys, size.hidden),
        "self_attn.o_proj": (size.hidden, size.hidden),
        "mlp.gate_proj": (size.ffn, size.hidden),
        "mlp.up_proj": (size.ffn, size.hidden),
        "mlp.down_proj": (size.hidden, size.ffn),
        "input_layernorm": (size.hidden,),
        "post_attention_layernorm": (size.hidden,),
    }
    return {f"model.layers.{index}.{name}.weight": shape for name, shape in shapes.items()}


def _filled(shapes: Mapping[str, tuple[int, ...]], size: Size, generator: Generator) -> dict[str, Tensor]:
    """Random matrices, and norms of ones."""
    import torch

    dtype = getattr(torch, size.dtype)
    return {
        name: torch.ones(shape, dtype=dtype)
        if len(shape) == 1
        else _random(shape[0], shape[1], generator).to(dtype)
        for name, shape in shapes.items()
    }


def _random(rows: int, columns: int, generator: Generator) -> Tensor:
    import torch

    return torch.randn(rows, columns, generator=generator).mul_(columns**-0.5)


def _parts(size: Size, vocabulary: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """The files of the checkpoint: one per block, and the embedding with the last norm."""
    for index in range(size.blocks):
        yield block_shapes(size, index)
    yield {"model.embed_tokens.weight": (vocabulary, size.hidden), "model.norm.weight": (size.hidden,)}


def _save_hollow(shapes: Mapping[str, tuple[int, ...]], size: Size, path: Path) -> None:
    """A file that has its header alone: no data is written, and all of it reads as zeros."""
    width, name = (2, "BF16") if size.dtype == "bfloat16" else (4, "F32")
    header, end = {}, 0
    for tensor, shape in shapes.items():
        begin, end = end, end + width * math.prod(shape)
        header[tensor] = {"dtype": name, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def save_random_llama(directory: Path, size: Size, donor: str = "smollm2", *, hollow: bool = False) -> Path:
    """Write the checkpoint in shards and return ``directory``, with the tokenizer and other settings of
    the Llama ``donor``. Holds one block in memory; a ``hollow`` one has shapes without weights, for plans,
    and takes no disk.
    """
    import torch
    from safetensors.torch import save_file

    source = resolve(donor).path
    directory.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(source / name, directory / name)
    config: dict[str, Any] = read_json(source / "config.json")
    config |= {
        "hidden_size": size.hidden,
        "intermediate_size": size.ffn,
        "num_hidden_layers": size.blocks,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": 64,
        "dtype": size.dtype,
    }
    config.pop("_model_name_or_path", None)
    write_json(directory / "config.json", config)
    weight_map: dict[str, str] = {}
    total, generator = 0, torch.Generator().manual_seed(0)
    for number, shapes in enumerate(_parts(size, int(config["vocab_size"])), 1):
        file = f"model-{number:05d}-of-{size.blocks + 1:05d}.safetensors"
        if hollow:
            _save_hollow(shapes, size, directory / file)
        else:
            save_file(_filled(shapes, size, generator), directory / file, {"format": "pt"})
        weight_map |= dict.fromkeys(shapes, file)
        total += sum(map(math.prod, shapes.values())) * (2 if size.dtype == "bfloat16" else 4)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(directory / "model.safetensors.index.json", index)
    return directory


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--ffn", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    wanted = parser.parse_args()
    save_random_llama(wanted.directory, Size(wanted.hidden, wanted.ffn, wanted.blocks, wanted.dtype))


if __name__ == "__main__":
    main()
