"""The nodes that the exporter will write for a model, with edgepress's own operators, as operations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import Attention, BlockAnatomy, Linear, Mlp
from ...compress.numbers.scheme import Scheme
from ...compress.numbers.table_scheme import rows_of
from ...devices.kernel_table.operation import (
    FLOAT_PRODUCT,
    Operation,
    by_rows,
    cached_attention,
    encoder_attention,
    float_product,
    integer_product,
    quantized_product,
)
from ...devices.predict.run import Operations, Run

_SILU = ("silu", "swish")
_GELU = {"gelu": "Gelu", "quick_gelu": "QuickGelu", "silu": "QuickGelu", "swish": "QuickGelu"}
_GELU |= {"relu": "Add"}  # which counts as a sum
# Nodes about masks, lengths and positions.
_AROUND = {"decoder": 8, "encoder": 3}
_LARGEST_GROUP, _CHANNEL_GROUP = 128, 64


@dataclass(frozen=True)
class PlannedModel:
    """Shapes and schemes of a model: by linear, of the embedding, and of a head of its own."""

    anatomy: Anatomy
    schemes: Mapping[str, Scheme]
    embedding: Scheme | None
    head: Scheme | None
    cache: str = "float32"
    notes: tuple[str, ...] = field(default=())


class PlannedGraph:
    """The operations of one run, in ``found``: of a decoder, or of an encoder of texts, whose norms are one
    operator with the sums before them.
    """

    def __init__(self, model: PlannedModel, run: Run) -> None:
        self.model, self.run, self.found = model, run, Operations()
        decoder = model.anatomy.kind == "decoder"
        self.joins = not decoder
        self._table(decoder)
        blocks = [block for block in model.anatomy.blocks for _ in range(block.repeats)]
        for index, block in enumerate(blocks):
            last = decoder and index + 1 == len(blocks) and run.kept
            self._block(block, min(run.rows, run.kept) if last else run.rows)
        if decoder:
            self._head()
        self.found.nodes = sum(self.found.counts.values()) + _AROUND[model.anatomy.kind]

    def _add(self, *operations: Operation) -> None:
        for one in operations:
            self.found.counts[one] += 1
            if one.op == FLOAT_PRODUCT:
                self.found.packed += one.read

    def _rows(self, op: str, rows: int, width: int, passes: int = 2) -> None:
        self._add(by_rows(op, rows, width, passes))

    def _table(self, decoder: bool) -> None:
        width, rows, scheme = self.model.anatomy.hidden_size, self.run.rows, self.model.embedding
        if decoder:
            self._looked_up(rows)
            self._norm(self.model.anatomy.blocks[0].norm1.kind, rows)
        elif scheme is not None and scheme.bits == 8:
            self._rows("EncoderEmbeddings", rows, width)
        else:
            for _ in range(3):
                self._rows("Gather", rows, width)
            self._rows("SumNorm", rows, width, 3)

    def _looked_up(self, rows: int) -> None:
        anatomy, scheme = self.model.anatomy, self.model.embedding
        tables = 1 if scheme is None else len(rows_of(scheme, anatomy.vocab_size))
        for _ in range(tables):
            self._rows("Gather" if scheme is None else "QuantizedRows", rows, anatomy.hidden_size)
        if tables > 1:  # of both rows that which is meant
            self._rows("Add", rows, anatomy.hidden_size, 3)

    def _norm(self, kind: str, rows: int) -> None:
        op = "RootMeanSquareNorm" if kind == "rms" else "LayerNormalization"
        self._rows(op, rows, self.model.anatomy.hidden_size)

    def _add_and_norm(self, kind: str, rows: int) -> None:
        width = self.model.anatomy.hidden_size
        if self.joins:
            self._rows("SumNorm", rows, width, 3)
        elif kind == "rms":
            self._rows("SumRootMeanSquareNorm", rows, width, 4)
        else:
            self._rows("Sum", rows, width, 3)
            self._norm(kind, rows)

    def _block(self, block: BlockAnatomy, kept: int) -> None:
        self._projected(list(runs(block.attention.projections, self.model.schemes)))
        self._attended(block.attention)
        self._joined(block.attention.o, block.norm1.kind, kept)
        self._feed_forward(block, kept)

    def _projected(self, groups: list[list[Linear]], rows: int = 0) -> None:
        """A product for each group of linears, and their biases where it has none of its own."""
        rows = rows or self.run.rows
        for group in groups:
            product = self._product(rows, group)
            self._add(product)
            if product.op == FLOAT_PRODUCT and any(linear.bias for linear in group):
                self._rows("Add", rows, product.sizes[2], 3)

    def _attended(self, part: Attention) -> None:
        rows, run = self.run.rows, self.run
        if self.model.anatomy.kind == "decoder":
            window = -1 if part.sliding_window is None else part.sliding_window
            shape = (part.heads, part.kv_heads, part.head_dim)
            cache = self.model.cache
            self._add(cached_attention("CachedAttention", cache, rows, run.past, *shape, window=window))
        else:
            exact = not self._activations(part.q)
            self._add(encoder_attention(rows, run.length or rows, part.heads, part.head_dim, exact=exact))

    def _joined(self, linear: Linear, kind: str, rows: int) -> None:
        """A product and the norm of its sum with the residual, which are one operator in W8A8 encoders."""
        if self._activations(linear) and self.joins and kind != "rms":
            self._add(integer_product(rows, linear.in_features, linear.out_features, residual=True))
            return
        self._add(self._product(rows, [linear]))
        self._add_and_norm(kind, rows)

    def _feed_forward(self, block: BlockAnatomy, rows: int) -> None:
        mlp = block.mlp
        width = mlp.up.out_features
        if mlp.gate is None:
            active = self.joins and self._activations(mlp.up)
            self._add(self._product(rows, [mlp.up], activation=active))
            if not active:
                biased = mlp.activation == "gelu" and mlp.up.bias
                self._rows("BiasGelu" if biased else _GELU.get(mlp.activation, "FastGelu"), rows, width)
        elif mlp.gate_up is None and self._gates_together(mlp):
            self._add(self._product(rows, [mlp.gate, mlp.up], gated=True))
        else:
            groups = self._groups([mlp.gate, mlp.up] if mlp.gate_up is None else [mlp.gate_up])
            self._projected(groups, rows)
            self._taken_apart(groups, rows, stored=mlp.gate_up is not None)
            self._rows(_GELU.get(mlp.activation, "FastGelu"), rows, width)
            self._rows("Mul", rows, width, 3)
        self._left(block, rows)

    def _left(self, block: BlockAnatomy, rows: int) -> None:
        """The last product of a block, and the norm that follows its sum."""
        self._joined(block.mlp.down, block.norm2.kind, rows)

    def _gates_together(self, mlp: Mlp) -> bool:
        """Whether gate and up are one product that joins its halves."""
        scheme = self.model.schemes.get(mlp.up.name)
        codes = scheme is not None and not scheme.activations
        return mlp.activation in _SILU and codes and not mlp.up.bias

    def _groups(self, linears: list[Linear]) -> list[list[Linear]]:
        """Those that are one product although each output is wanted: neighbours whose weights alone are
        rounded.
        """
        found = []
        for group in runs(linears, self.model.schemes):
            whole = group[0].name in self.model.schemes and not self._activations(group[0])
            found += [group] if whole else [[one] for one in group]
        return found

    def _taken_apart(self, groups: list[list[Linear]], rows: int, *, stored: bool) -> None:
        """What splits a product of several linears, or of one that is ``stored`` so; it counts as a sum."""
        for group in groups:
            if stored or len(group) > 1:
                self._rows("Add", rows, sum(one.out_features for one in group), 3)

    def _head(self) -> None:
        anatomy, rows = self.model.anatomy, min(self.run.rows, self.run.kept or self.run.rows)
        scheme = self.model.embedding if anatomy.tied or anatomy.head is None else self.model.head
        if scheme is None:
            self._add(_quantized(rows, anatomy.hidden_size, anatomy.vocab_size, None))
            return
        parts = rows_of(scheme, anatomy.vocab_size)
        for part, one in parts:
            self._add(_quantized(rows, anatomy.hidden_size, part.stop - part.start, one))
        if len(parts) > 1:  # their logits, put together
            self._rows("Add", rows, anatomy.vocab_size, 2)

    def _activations(self, linear: Linear) -> bool:
        scheme = self.model.schemes.get(linear.name)
        return scheme is not None and scheme.activations is not None

    def _product(
        self, rows: int, linears: Sequence[Linear], *, gated: bool = False, activation: bool = False
    ) -> Operation:
        width, first = sum(linear.out_features for linear in linears), linears[0]
        if self._activations(first):
            return integer_product(rows, first.in_features, width, activation=activation)
        return _quantized(rows, first.in_features, width, self.model.schemes.get(first.name), gated=gated)


def _quantized(rows: int, k: int, n: int, scheme: Scheme | None, *, gated: bool = False) -> Operation:
    """A product whose weights alone are quantized, or not even they."""
    if scheme is None or not (scheme.format == "int" or scheme.of_trellis):
        return float_product(rows, k, n)
    group, shared = _CHANNEL_GROUP, -(-k // _CHANNEL_GROUP)
    if scheme.group_size is not None:
        group = max(one for one in range(16, _LARGEST_GROUP + 1, 16) if scheme.group_size % one == 0)
        shared = scheme.group_size // group
    points = not scheme.symmetric
    more = {"zero_points": points, "gated": gated, "trellis": scheme.of_trellis}
    return quantized_product(rows, k, n, scheme.bits, group=group, shared=shared, **more)


def runs(linears: Sequence[Linear], schemes: Mapping[str, Scheme]) -> Iterator[list[Linear]]:
    """Neighbours of one scheme, which are one product."""
    for _, group in groupby(linears, key=lambda linear: schemes.get(linear.name)):
        yield list(group)
