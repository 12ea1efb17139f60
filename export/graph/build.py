"""What the builder of every part of a graph needs: ``Build``, the graph under construction, and
``WeightView``, the weights of the checkpoint as this graph stores them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import Attention, Norm
from ...compress.model.kv_scheme import KVScales
from ...compress.numbers.qtensor import QTensor
from ...compress.numbers.scheme import Scheme
from ...compress.numbers.table_rounding import in_parts
from .graph_writer import GraphWriter


@dataclass(frozen=True)
class GraphPart:
    """A part of a graph that computes ``outputs`` from ``inputs``, by the names of values; a proof runs it
    alone.

    Attributes:
        name: of the block, or of the module that it is.
        norm: of the module whose output the last of two outputs is, or None.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    norm: str | None = None


# Parts of an encoder's graph that are no module of the model: what enters its blocks, and all behind them.
ENTRANCE, BEHIND = "what enters the first block", "what is behind the last block"
_Ended = tuple[str, Sequence[ir.Value], Sequence[ir.Value], str | None]


@dataclass
class Build:
    """One graph under construction.

    Attributes:
        graph: where nodes and initializers go.
        weights: where initializers come from.
        exact: products whose weights alone are quantized take activations as they are, and do not round
            them to int8, which is faster.
        notes: storage that differs from the scheme, as sentences for the manifest.
        int8_inputs: activations already quantized per token: ``(uint8 codes, scale)`` by value.
        int8_zeros: their zero points ``[batch, seq, 1]``, the same for all; whoever changes the number of
            positions resets it to None.
        int8_exact: a bool of the graph: whether 8-bit products are exact on the processor that runs it.
        rotated_inputs: activations in the basis of a trellis' words, by value.
        tiles: write edgepress's own operators for quantized weights and attention.
        half_scales: whether float16 holds the scales of what is stored of an embedding or head, by name.
    """

    graph: GraphWriter
    weights: WeightView
    exact: bool = False
    tiles: bool = False
    notes: set[str] = field(default_factory=set)
    int8_inputs: dict[ir.Value, tuple[ir.Value, ir.Value]] = field(default_factory=dict)
    rotated_inputs: dict[ir.Value, ir.Value] = field(default_factory=dict)
    int8_zeros: ir.Value | None = None
    int8_exact: ir.Value | None = None
    half_scales: dict[str, bool] = field(default_factory=dict)
    _ended: list[_Ended] = field(default_factory=list)

    @property
    def anatomy(self) -> Anatomy:
        """The anatomy of the model."""
        return self.weights.anatomy

    @property
    def own_attention(self) -> bool:
        """Whether a decoder's attention is edgepress's own operator, which knows no sinks."""
        mixers = (block.mixer for block in self.anatomy.blocks)
        return self.tiles and not any(isinstance(part, Attention) and part.sinks for part in mixers)

    def end_part(
        self, name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], norm: Norm | None = None
    ) -> None:
        """State that the part ``name`` computes ``outputs`` from ``inputs``."""
        self._ended.append((name, inputs, outputs, None if norm is None else norm.name))

    def parts(self) -> tuple[GraphPart, ...]:
        """What the finished graph is put together of, in order."""

        def names(values: Sequence[ir.Value]) -> tuple[str, ...]:
            return tuple(str(value.name) for value in values)

        return tuple(
            GraphPart(name, names(read), names(made), norm) for name, read, made, norm in self._ended
        )

    def vector(self, name: str, read_per_token: int | None = None) -> ir.Value:
        """The stored float tensor ``name`` as an initializer of its own shape."""
        weights = self.weights
        return self.graph.weight(
            name,
            ir.DataType.FLOAT,
            weights.shape(name),
            lambda: weights.tensor(name).numpy().astype(np.float32, copy=False),
            read_per_token=read_per_token,
        )

    def table(self, module: str) -> ir.Value:
        """The float table ``[rows, hidden]`` of ``module``, of which a token reads a row."""
        name = f"{module}.weight"
        return self.vector(name, 4 * self.weights.shape(name)[1])


class GraphSource(Protocol):
    """What the builders need of :class:`edgepress.compress.model.weights.WeightSource`."""

    anatomy: Anatomy
    schemes: dict[str, Scheme]
    shapes: dict[str, tuple[int, ...]]
    embedding_scheme: Scheme | None

    @property
    def head_scheme(self) -> Scheme | None: ...

    def kv_scales(self, attention: Attention) -> KVScales | None: ...

    def linear(self, name: str) -> QTensor | Tensor: ...

    def scales(self, name: str) -> Tensor: ...

    def dense(self, name: str) -> Tensor: ...

    def bias(self, name: str) -> Tensor | None: ...

    def tensor(self, name: str) -> Tensor: ...

    def table(self, name: str) -> QTensor | Tensor: ...


class WeightView:
    """``source`` with its schemes and a cache of ``kv_dtype``, or (``as_float``) all in float32.

    The quantized view keeps codes as they are and quantizes embedding and head; the float view, which the
    proof builds on, is the same checkpoint with everything dequantized. Rows that a checkpoint interleaves
    (q, k and v of one head after the other, or channels that turn together) come in the order in which
    attention reads them. ``read``
    returns a float32 tensor by name, by default from the source.
    """

    def __init__(
        self,
        source: GraphSource,
        *,
        as_float: bool = False,
        kv_dtype: str = "float32",
        read: Callable[[str], Tensor] | None = None,
    ) -> None:
        self.source, self.as_float, self._read = source, as_float, read or source.tensor
        self.kv_dtype = "float32" if as_float else kv_dtype
        self.anatomy = source.anatomy
        self.embedding_scheme = None if as_float else source.embedding_scheme
        self.head_scheme = None if as_float else source.head_scheme
        self._last: tuple[str, Sequence[QTensor]] | None = None
        self._orders = {
            name: torch.tensor(order)
            for block in source.anatomy.blocks
            for name, order in block.row_orders().items()
        }

    def scheme(self, linear: str) -> Scheme | None:
        """How the linear module is stored; None is float32."""
        return None if self.as_float else self.source.schemes.get(linear)

    def kv_scales(self, attention: Attention) -> KVScales | None:
        """What the codes of the key/value cache mean; None for a cache in float."""
        found = self.source.kv_scales(attention) if self.kv_dtype in ("int8", "uint8") else None
        rope = attention.rope
        if found is None or rope is None or not rope.interleaved or found.key.shape[-1] == 1:
            return found
        return replace(found, key=found.key[..., rope.halves(attention.head_dim)])

    def shape(self, name: str) -> tuple[int, ...]:
        """Logical shape of a tensor."""
        return self.source.shapes[name]

    def has(self, name: str) -> bool:
        """Whether the checkpoint stores the tensor."""
        return name in self.source.shapes

    def tensor(self, name: str) -> Tensor:
        """A float32 tensor by full name."""
        order = self._orders.get(name.rpartition(".")[0])
        tensor = self._read(name)
        return tensor if order is None else tensor[order]

    def quantized(self, linear: str) -> QTensor:
        """The codes of a quantized linear. The last one is cached, since its codes, scales and zero points
        are written one after the other.
        """
        return self._cached(linear, lambda: [self._ordered(linear, self.source.linear)])[0]

    def scales(self, linear: str) -> Tensor:
        """The scales ``[out, groups]`` float32 of a linear that is quantized to integers."""
        return self.source.scales(linear)

    def quantized_table(self, module: str) -> QTensor:
        """Embedding or head ``module``, rounded to the codes of its scheme."""
        return self._cached(module, lambda: [self._ordered(module, self.source.table)])[0]

    def table_parts(self, module: str) -> Sequence[QTensor]:
        """The same as its scheme stores it: the rows of frequent tokens, and those of rare ones if there are
        any.
        """
        return self._cached(f"{module} in parts", lambda: in_parts(self._ordered(module, self.source.table)))

    def _ordered(self, module: str, read: Callable[[str], QTensor | Tensor]) -> QTensor:
        weight = read(module)
        assert isinstance(weight, QTensor), f"{module} has a scheme and no codes"
        order = self._orders.get(module)
        return weight if order is None else weight.rows(order)

    def _cached(self, key: str, read: Callable[[], Sequence[QTensor]]) -> Sequence[QTensor]:
        if self._last is None or self._last[0] != key:
            self._last = (key, read())
        return self._last[1]
