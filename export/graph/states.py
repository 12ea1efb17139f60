"""States of fixed size that stand for the tokens before: a graph's inputs and outputs that hold them.

A row that begins reads none, whatever its buffer holds, so that a runtime may use one again as it is.

What each kind of block keeps of the tokens before: which inputs and outputs of a graph hold it.

Causal depthwise convolutions with a state: the last columns that went in.

A token's sum has as many terms as the convolution is wide, three or four: each is a product of shifted
columns with a row of weights, so that the states of a prompt need not be transposed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...compress.model.block_anatomy import Attention, BlockAnatomy
from ...compress.model.block_parts.mixer_anatomy import CausalConvolution, ShortConvolution, StateSpace
from ...runtime.bundle.graph_contract import present_of
from .attention.cache_io import past, present
from .attention.padding import Columns, keep
from .build import Build
from .graph_writer import Array
from .linear.linear import project

FLOAT = ir.DataType.FLOAT
_TIME = 1


@dataclass(frozen=True)
class RowStates:
    """What blocks need to know of the rows to carry a state on.

    Attributes:
        goes_on: ``[batch, 1, 1]`` bool, whether a row has tokens before the new ones.
        filled: ``[batch, 1]`` int64, new tokens of each row, which come before its padding.
        width: ``[1]`` int64, columns of the batch.
        real: ``[batch, seq, 1]``, 1 for new tokens and 0 for padding.
    """

    goes_on: ir.Value
    filled: ir.Value
    width: ir.Value
    real: ir.Value


def row_states(build: Build, lengths: ir.Value, placed: Columns) -> RowStates | None:
    """Of rows that have ``lengths [batch]`` tokens in all; None where every block attends."""
    if build.anatomy.attends:
        return None
    graph = build.graph
    last = graph.constant("states.last", np.array([1], np.int64))
    rows = graph.node("Unsqueeze", "states.lengths", [lengths, last])
    more = graph.node("Greater", "states.more", [rows, placed.filled])
    goes_on = graph.node("Unsqueeze", "states.goes_on", [more, last])
    before = graph.node("Less", "states.before", [placed.steps, placed.filled])
    real = graph.node("Cast", "states.tokens", [before], to=FLOAT)
    deep = graph.constant("states.deep", np.array([2], np.int64))
    real = graph.node("Unsqueeze", "states.real", [real, deep])
    return RowStates(goes_on, placed.filled, placed.width, real)


def state(build: Build, name: str, shape: Sequence[int]) -> ir.Value:
    """The graph input ``past_NAME [batch, *shape]``."""
    return build.graph.input(f"past_{name}", FLOAT, ["batch_size", *shape])


def known(build: Build, value: ir.Value, rows: RowStates) -> ir.Value:
    """``value [batch, …, …]``, a state that goes in, zero for rows that begin."""
    zero = build.graph.constant("states.zero", np.array(0, np.float32))
    return build.graph.node("Where", f"{value.name}.known", [rows.goes_on, value, zero])


def carried(build: Build, value: ir.Value, name: str, shape: Sequence[int]) -> None:
    """Make ``value`` the graph output that extends the state ``name``."""
    build.graph.output(value, present_of(f"past_{name}"), FLOAT, ["batch_size", *shape])


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


def convolved(
    build: Build, value: ir.Value, part: CausalConvolution, past: ir.Value, rows: RowStates
) -> tuple[ir.Value, ir.Value]:
    """The convolution of ``value [batch, seq, channels]`` behind ``past [batch, channels, width]``, and that
    state after it.
    """
    graph, name = build.graph, part.module
    before = graph.node("Transpose", f"{name}.past", [known(build, past, rows)], perm=[0, 2, 1])
    columns = graph.node("Concat", f"{name}.columns", [before, value], axis=_TIME)
    axis = graph.constant("convolution.axis", np.array([_TIME], np.int64))
    total: ir.Value | None = None
    for place in range(part.width):
        start = graph.constant(f"convolution.{place + 1}", np.array([place + 1], np.int64))
        end = graph.node("Add", f"{name}.end.{place}", [rows.width, start])
        shifted = graph.node("Slice", f"{name}.shifted.{place}", [columns, start, end, axis])
        term = graph.node("Mul", f"{name}.term.{place}", [shifted, _row(build, part, place)])
        total = term if total is None else graph.node("Add", f"{name}.sum.{place}", [total, term])
    assert total is not None
    if part.bias:
        total = graph.node("Add", f"{name}.biased", [total, build.vector(f"{name}.bias")])
    return total, _last(build, columns, part, rows)


def short_convolution(
    build: Build, value: ir.Value, part: ShortConvolution, past: ir.Value, rows: RowStates
) -> tuple[ir.Value, ir.Value]:
    """What ``out_proj`` reads of ``value [batch, seq, hidden]``, and the state after it."""
    graph, name = build.graph, part.convolution.module
    width = part.out_proj.in_features
    both = project(build, value, [part.in_proj], part.in_proj.name)
    b, c, x = graph.split(f"{name}.split", both, [width] * 3)
    gated = graph.node("Mul", f"{name}.gated", [b, x])
    mixed, present = convolved(build, gated, part.convolution, past, rows)
    return graph.node("Mul", f"{name}.out", [c, mixed]), present


def _row(build: Build, part: CausalConvolution, place: int) -> ir.Value:
    """The weights ``[channels]`` of the tokens that are ``width - 1 - place`` before."""
    name, weights = f"{part.module}.weight", build.weights

    def make() -> Array:
        return weights.tensor(name)[:, 0, place].numpy().astype(np.float32)

    return build.graph.weight(f"{name}.{place}", ir.DataType.FLOAT, [part.channels], make)


def _last(build: Build, columns: ir.Value, part: CausalConvolution, rows: RowStates) -> ir.Value:
    """Of ``columns [batch, width + seq, channels]`` the last ``width`` up to each row's last token,
    ``[batch, channels, width]``.
    """
    graph, name = build.graph, part.module
    steps = graph.constant(f"convolution.steps.{part.width}", np.arange(part.width, dtype=np.int64))
    places = graph.node("Add", f"{name}.places", [rows.filled, steps])
    deep = graph.constant("convolution.deep", np.array([2], np.int64))
    last = keep(build, graph.node("Unsqueeze", f"{name}.rows", [places, deep]), f"{name}.last", columns)
    return graph.node("Transpose", f"{name}.present", [last], perm=[0, 2, 1])
