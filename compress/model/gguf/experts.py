"""The tensors that a checkpoint has of experts, by those of transformers' module, in which gate and up of all
experts of a block are one, and down another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..anatomy import Shapes
from ..families._experts import ExpertNames

_ALL = re.compile(r"(.+\.\d+)\.\w+\.experts\.(gate_up_proj|down_proj)(_bias)?")


def stored_shapes(shapes: Shapes, names: ExpertNames) -> dict[str, tuple[int, ...]]:
    """``shapes`` of a module's tensors, those of experts one by one, by the ``names`` of checkpoints."""
    return {name: shape for one, whole in shapes.items() for name, shape in _stored(one, whole, names)}


def _stored(name: str, shape: tuple[int, ...], names: ExpertNames) -> Iterator[tuple[str, tuple[int, ...]]]:
    router = re.fullmatch(rf"(.+\.\d+)\.\w+\.{re.escape(names.router.partition('.')[0])}\.(\w+)", name)
    match = _ALL.fullmatch(name)
    if match is None:
        yield f"{router[1]}.{names.module}.{names.router}.{router[2]}" if router else name, shape
        return
    block, linear, bias = match.groups()
    parts, (count, rows, *others) = names.linears[:-1], shape
    if linear == "down_proj":
        parts = names.linears[-1:]
    for index in range(count):
        for part in parts:
            stored = f"{block}.{names.module}.experts.{index}.{part}.{'bias' if bias else 'weight'}"
            yield stored, (rows // len(parts), *others)
