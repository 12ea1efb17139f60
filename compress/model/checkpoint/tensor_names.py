"""Experts that a checkpoint stores in one tensor (Granite, gpt-oss), by names of their own: each is a part of
the file, also where gpt-oss has them in MXFP4. Written, those in float become one tensor again; codes are
stored by expert.

Names under which tensors were published before transformers renamed them, and does so on every load: the
reader knows them by the new ones alone.

Where transformers makes several matrices of one, each is so many of its rows, and so many of its bytes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ....errors import CheckpointError
from .shards import Location

_OF_ALL = {"LayerNorm.gamma": ("LayerNorm.weight",), "LayerNorm.beta": ("LayerNorm.bias",)}
# By model type: what a name has in it, and what the names of its parts have there.
_OF_FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "nomic_bert": {
        "encoder.layers.": ("layers.",),
        "emb_ln.": ("embeddings.LayerNorm.",),
        ".attn.Wqkv.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
        ".attn.out_proj.": (".self_attn.o_proj.",),
        ".fc11.": (".up_proj.",),
        ".fc12.": (".gate_proj.",),
        ".fc2.": (".down_proj.",),
        ".norm1.": (".post_attention_layernorm.",),
        ".norm2.": (".post_mlp_layernorm.",),
    },
    "gte": {
        "new.": ("",),
        "encoder.layer.": ("layers.",),
        ".attention.qkv_proj.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
        ".attention.o_proj.": (".self_attn.o_proj.",),
        ".mlp.up_gate_proj.": (".mlp.up_proj.", ".mlp.gate_proj."),
        ".attn_ln.": (".post_attention_layernorm.",),
        ".mlp_ln.": (".post_mlp_layernorm.",),
    },
    "vit": {
        "encoder.layer.": ("layers.",),
        ".attention.attention.query.": (".attention.q_proj.",),
        ".attention.attention.key.": (".attention.k_proj.",),
        ".attention.attention.value.": (".attention.v_proj.",),
        ".attention.output.dense.": (".attention.o_proj.",),
        ".intermediate.dense.": (".mlp.fc1.",),
        ".output.dense.": (".mlp.fc2.",),
    },
    "dinov2": {
        ".attention.attention.query.": (".attention.q_proj.",),
        ".attention.attention.key.": (".attention.k_proj.",),
        ".attention.attention.value.": (".attention.v_proj.",),
        ".attention.output.dense.": (".attention.o_proj.",),
        ".mlp.weights_in.": (".mlp.gate_proj.", ".mlp.up_proj."),
        ".mlp.weights_out.": (".mlp.down_proj.",),
    },
}


@dataclass(frozen=True)
class _Stack:
    """One tensor ``whole`` of all experts: their ``parts`` in ``module`` follow one another for each expert.
    ``mark`` is a part that experts have where the family stacks them.
    """

    whole: str
    module: str
    parts: tuple[str, ...]
    mark: str


_GRANITE, _OSS = ("block_sparse_moe.experts", "down_proj.weight"), ("mlp.experts", "gate_up_proj.bias")
_STACKS = tuple(
    _Stack(whole, module, parts, mark)
    for (module, mark), whole, parts in (
        (_GRANITE, "block_sparse_moe.input_linear.weight", ("gate_proj.weight", "up_proj.weight")),
        (_GRANITE, "block_sparse_moe.output_linear.weight", ("down_proj.weight",)),
        (_OSS, "mlp.experts.gate_up_proj", ("gate_up_proj.weight",)),
        (_OSS, "mlp.experts.gate_up_proj_bias", ("gate_up_proj.bias",)),
        (_OSS, "mlp.experts.down_proj", ("down_proj.weight",)),
        (_OSS, "mlp.experts.down_proj_bias", ("down_proj.bias",)),
        (_OSS, "mlp.experts.gate_up_proj_blocks", ("gate_up_proj.blocks",)),
        (_OSS, "mlp.experts.gate_up_proj_scales", ("gate_up_proj.scales",)),
        (_OSS, "mlp.experts.down_proj_blocks", ("down_proj.blocks",)),
        (_OSS, "mlp.experts.down_proj_scales", ("down_proj.scales",)),
    )
)
_RANKS = {"weight": 3, "bias": 2, "blocks": 4, "scales": 3}  # of the tensor of all experts


def apart(tensors: Mapping[str, Location]) -> dict[str, Location]:
    """``tensors`` with each of experts ``[experts, rows, …]`` in the place of all."""
    found: dict[str, Location] = {}
    for name, location in tensors.items():
        stack = next((one for one in _STACKS if name.endswith(f".{one.whole}")), None)
        if stack is None or not _fits(stack, location.entry.shape):
            found[name] = location
            continue
        count, rows, *others = location.entry.shape
        size = (location.entry.end - location.entry.start) // (count * len(stack.parts))
        module = name.removesuffix(stack.whole) + stack.module
        names = [f"{module}.{expert}.{part}" for expert in range(count) for part in stack.parts]
        shape = (rows // len(stack.parts), *others)
        for index, own in enumerate(names):
            start = location.entry.start + index * size
            found[own] = replace(
                location, entry=replace(location.entry, shape=shape, start=start, end=start + size)
            )
    return found


def _fits(stack: _Stack, shape: tuple[int, ...]) -> bool:
    rank = _RANKS[stack.parts[0].rpartition(".")[2]]
    return len(shape) == rank and 0 not in shape and shape[1] % len(stack.parts) == 0


def stacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`apart` for the tensors of a block, for each linear that all experts have."""
    found = dict(tensors)
    for stack in _STACKS:
        for module in _modules(stack, tensors):
            count = len({name.removeprefix(f"{module}.").split(".")[0] for name in _below(module, tensors)})
            names = [f"{module}.{expert}.{part}" for expert in range(count) for part in stack.parts]
            if all(name in tensors and f"{name}_scale" not in tensors for name in names):
                rows = [found.pop(name) for name in names]
                joined = torch.cat(rows).view(count, -1, *rows[0].shape[1:])
                found[module.removesuffix(stack.module) + stack.whole] = joined
    return found


def _modules(stack: _Stack, tensors: Mapping[str, Tensor]) -> list[str]:
    """Those of blocks whose experts are in one tensor, as stored or in codes."""
    known = re.compile(rf"(.*\.{re.escape(stack.module)})\.\d+\.{re.escape(stack.mark)}\w*")
    return sorted({match[1] for name in tensors if (match := known.fullmatch(name))})


def _below(module: str, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    return (name for name in tensors if name.startswith(f"{module}."))


def modern_names(tensors: Mapping[str, Location], config: Mapping[str, Any]) -> dict[str, Location]:
    """``tensors`` of a model with this ``config`` by the names that transformers gives them."""
    known = _OF_ALL | _OF_FAMILIES.get(str(config.get("model_type")), {})
    found: dict[str, Location] = {}
    for name, location in tensors.items():
        for modern, part in _parts(name, location, known):
            if modern in found:
                raise CheckpointError(f"{location.path} holds {modern!r} under its old name and its new one")
            found[modern] = part
    return found


def _parts(
    name: str, location: Location, known: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, Location]]:
    names = [name]
    for old, new in known.items():
        names = [one.replace(old, each) for one in names for each in (new if old in one else (old,))]
    entry, count = location.entry, len(names)
    if count == 1:
        yield names[0], location
        return
    rows, size = entry.shape[0] // count if entry.shape else 0, (entry.end - entry.start) // count
    if rows == 0 or entry.shape[0] % count:
        raise CheckpointError(
            f"tensor {name!r} has shape {list(entry.shape)}, which {count} parts do not share evenly"
        )
    for index, one in enumerate(names):
        start = entry.start + index * size
        part = replace(entry, shape=(rows, *entry.shape[1:]), start=start, end=start + size)
        yield one, replace(location, entry=part)
