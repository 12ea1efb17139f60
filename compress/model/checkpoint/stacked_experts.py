"""Experts that a checkpoint stores in one tensor (Granite), by names of their own: each is a part of the
file. Written, those in float become one tensor again; codes are stored by expert.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .shards import Location

# By the end of a stored name, the linears that follow one another in it for each expert.
_PARTS = {"input_linear": ("gate_proj", "up_proj"), "output_linear": ("down_proj",)}
_STACKED = re.compile(r"(.*\.block_sparse_moe)\.(input_linear|output_linear)\.weight")


def apart(tensors: Mapping[str, Location]) -> dict[str, Location]:
    """``tensors`` with each of experts ``[experts, rows, in]`` in the place of all."""
    found: dict[str, Location] = {}
    for name, location in tensors.items():
        match, shape = _STACKED.fullmatch(name), location.entry.shape
        parts = _PARTS[match[2]] if match else ()
        if match is None or len(shape) != 3 or 0 in shape or shape[1] % len(parts):
            found[name] = location
            continue
        count, rows, columns = shape
        size = (location.entry.end - location.entry.start) // (count * len(parts))
        names = [f"{match[1]}.experts.{expert}.{part}.weight" for expert in range(count) for part in parts]
        for index, own in enumerate(names):
            start = location.entry.start + index * size
            entry = replace(
                location.entry, shape=(rows // len(parts), columns), start=start, end=start + size
            )
            found[own] = replace(location, entry=entry)
    return found


def stacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`apart` for the tensors of a block, for each linear that all experts have."""
    found = dict(tensors)
    experts = re.compile(r"(.*\.block_sparse_moe\.experts)\.(\d+)\.(gate|up|down)_proj\.\w+")
    for module in {match[1] for name in tensors if (match := experts.fullmatch(name))}:
        count = len({name.removeprefix(module).split(".")[1] for name in tensors if name.startswith(module)})
        for whole, parts in _PARTS.items():
            names = [f"{module}.{expert}.{part}.weight" for expert in range(count) for part in parts]
            if all(name in tensors and f"{name}_scale" not in tensors for name in names):
                rows = [found.pop(name) for name in names]
                joined = torch.cat(rows).view(count, -1, rows[0].shape[1])
                found[f"{module.removesuffix('.experts')}.{whole}.weight"] = joined
    return found
