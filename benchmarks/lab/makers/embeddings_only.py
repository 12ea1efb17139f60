"""A sentence encoder of its embeddings alone: what is left where every block is deleted.

One block stays in the files, since a model needs one, and adds nothing: the last products of its attention
and of its MLP are zero, and its last norm scales as the embeddings' own, which scales by one instead. What an
encoder with fewer blocks scores above it is what its blocks do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from ....compress.model.checkpoint.block_sizes import without_blocks
from ....compress.model.checkpoint.shard_writer import copy_companions
from ....compress.model.models import resolve
from ....compress.model.weights import WeightSource
from ....errors import InputError
from ....files.storage import write_json

if TYPE_CHECKING:
    from ..study.schema import Source
    from ..study.sources import Sources

PICO: dict[str, Any] = {}


def make(target: Path, sources: Sources, *, model: Source) -> None:
    """Write the embeddings of ``model``, an encoder whose norms come after what is added."""
    source = WeightSource.open(resolve(sources.model(model)).path)
    anatomy = source.anatomy
    block = anatomy.blocks[0]
    embedded = anatomy.embedding_norm
    if anatomy.kind != "encoder" or block.order != "post" or embedded is None:
        raise InputError(f"a {anatomy.model_type} model has more outside its blocks than embeddings")
    others = tuple(f"{other.prefix}." for other in anatomy.blocks[1:])
    names = [name for name in source.names() if not name.startswith(others)]
    tensors = source.reader.read(names)
    for last in (block.attention.o, block.mlp.down):
        for part in ("weight", "bias"):
            tensors[f"{last.name}.{part}"] = torch.zeros_like(tensors[f"{last.name}.{part}"])
    for part, plain in (("weight", torch.ones_like), ("bias", torch.zeros_like)):
        tensors[f"{block.norm2.name}.{part}"] = tensors[f"{embedded.name}.{part}"]
        for norm in (embedded, block.norm1):
            tensors[f"{norm.name}.{part}"] = plain(tensors[f"{norm.name}.{part}"])
    target.mkdir(parents=True)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config = source.reader.config
    write_json(target / "config.json", {**config, **without_blocks(config, anatomy, [0])})
    copy_companions(source.reader, target)
