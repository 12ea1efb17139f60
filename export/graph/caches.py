"""What each kind of block keeps of the tokens before: which inputs and outputs of a graph hold it."""

from __future__ import annotations

import onnx_ir as ir

from ...compress.model.block_anatomy import Attention, BlockAnatomy
from ...compress.model.block_parts.mixer_anatomy import ShortConvolution, StateSpace
from .attention.cache_io import past, present
from .build import Build
from .states import carried, state


def pasts(build: Build, block: BlockAnatomy) -> tuple[ir.Value, ...]:
    """The graph inputs that hold what ``block`` knows: keys and values, or its states."""
    if block.attends:
        return past(build, block)
    return tuple(state(build, name, shape) for name, shape in states_of(block))


def presents(build: Build, block: BlockAnatomy, values: tuple[ir.Value, ...]) -> None:
    """Make ``values``, what the block knows then, outputs of the graph."""
    if block.attends:
        key, value = values
        present(build, block, (key, value))
        return
    for (name, shape), value in zip(states_of(block), values, strict=True):
        carried(build, value, name, shape)


def states_of(block: BlockAnatomy) -> list[tuple[str, list[int]]]:
    """Name and shape of each state of a block; none where it attends."""
    if isinstance(block.mixer, Attention):
        return []
    mixer, part = block.mixer, block.mixer.convolution
    columns = (f"conv.{block.index}", [part.channels, part.width])
    if isinstance(mixer, ShortConvolution):
        return [columns]
    if isinstance(mixer, StateSpace):
        return [columns, (f"ssm.{block.index}", [part.channels, mixer.size])]
    return [columns, (f"ssm.{block.index}", [mixer.heads, mixer.head_dim, mixer.size])]
