"""What the nodes of a bundle's graph do in one run: a list of operations with their counts, from the graph's
file and the manifest alone.
"""

from math import prod

from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.graph_file import GraphFile, Node
from ...runtime.bundle.graph_sections import KVLayer
from ..kernel_table.operation import (
    Operation,
    by_rows,
    cached_attention,
    encoder_attention,
    plain_attention,
)
from .run import PACKED, PRODUCTS, Operations, Run, convolution, split_widths

KEEP = "logits_to_keep"
_PASSES = {
    "SkipSimplifiedLayerNormalization": 4,
    "SumRootMeanSquareNorm": 4,
    "SumNorm": 3,
    "Add": 3,
    "Mul": 3,
    "Sum": 3,
}
_MEASURED = (
    "RootMeanSquareNorm",
    "SimplifiedLayerNormalization",
    "LayerNormalization",
    "Gelu",
    "QuickGelu",
    "FastGelu",
    "BiasGelu",
)
_FREE = frozenset({"Reshape", "Identity", "Unsqueeze", "Squeeze", "PoolTokens", "UnpackTokens", "Slice"})
# What a Scan carries from token to token; no kernel table times it.
CARRIED = "Scan"
_IMAGE, _SOUND, _CROSS, _PAST = "pixel_values", "audio", "cross.", "past_key_values."
_READS = ("Cast", "Gather", "Reshape")  # the steps from a cache in codes to numbers
_LOOKUPS = ("QuantizedRows", "Gather", "GatherBlockQuantized", "EncoderEmbeddings")


_Value = tuple[int, int]  # rows and width


class _Walk:
    """Goes through the nodes in the order in which they run; ``fed`` are inputs of numbers, not of tokens.
    ``written`` are the layers of an encoder–decoder, whose caches may be in other types than ``Attention``.
    """

    def __init__(
        self,
        graph: GraphFile,
        run: Run,
        layers: list[KVLayer] | None = None,
        kv_dtype: str = "float32",
        fed: dict[str, _Value] | None = None,
        written: list[KVLayer] | None = None,
    ) -> None:
        self.graph, self.run, self.kv_dtype = graph, run, kv_dtype
        self.layers, self.fed, self.written = iter(layers or ()), fed or {}, iter(written or ())
        self.grown = set[str]()  # what was written before and now, as one value
        self.values: dict[str, _Value] = dict(self.fed)
        # What is computed of how many positions are asked for; rows that are taken by it are so many.
        self.kept = {KEEP}
        self.nodes = graph.first_forms().values()
        self.found = Operations(nodes=len(self.nodes))

    def go(self) -> Operations:
        for node in self.nodes:
            self._node(node)
        return self.found

    def _node(self, node: Node) -> None:
        if node.op in _LOOKUPS and not self._chosen(node) and not self._unpacks(node):
            self._lookup(node)
            return
        if node.op == "Shape" or self._shaped(node):
            return
        into = next((self.values[name] for name in node.inputs if name in self.values), None)
        asked = any(name in self.kept for name in node.inputs)
        if into is None:
            self.kept.update(node.outputs if asked else ())
            return
        rows, width = into
        if node.op == "Concat" and any(name.startswith(_PAST) for name in node.inputs):
            rows += self.run.past
            self.grown.update(node.outputs)
        elif node.op in _READS and any(name in self.grown for name in node.inputs):
            self.grown.update(node.outputs)
        if asked:
            rows = min(rows, self.run.kept) if self.run.kept else rows
            self._leave(node, rows, width)
            return
        operation, left = self._computed(node, rows, width)
        if operation is not None:
            self.found.counts[operation] += 1
            if node.op in PACKED:
                self.found.packed += operation.read
            self._leave(node, left, self._width_of(node, operation))
        elif node.op == CARRIED:
            self.found.counts[by_rows(CARRIED, rows, width)] += 1
            self._leave(node, rows, width)
        elif node.op == "Split":
            self._elementwise(node, rows, width)
            for name, part in zip(node.outputs, split_widths(self.graph, node, width), strict=True):
                self.values[name] = (rows, part)
        else:
            if node.op not in _FREE:
                self._elementwise(node, rows, width)
            self._leave(node, rows, width)

    def _computed(self, node: Node, rows: int, width: int) -> tuple[Operation | None, int]:
        """The product or attention that ``node`` is, and the rows that it leaves."""
        make = PRODUCTS.get(node.op)
        if make is not None:
            return make(self.graph, node, rows), rows
        if "Attention" in node.op:
            return self._attention(node, rows, width), rows
        found = convolution(self.graph, node, rows) if node.op == "Conv" else None
        if found is None:
            return None, rows
        self.found.taken["Conv"] = found[0].op
        return found

    def _chosen(self, node: Node) -> bool:
        """Whether ``node`` takes rows of what was computed, and not of a table."""
        return node.op == "Gather" and bool(self.run.length) and node.inputs[0] in self.values

    def _unpacks(self, node: Node) -> bool:
        """Whether ``node`` looks up what codes that were computed or fed stand for."""
        return node.op == "Gather" and len(node.inputs) > 1 and node.inputs[1] in self.values

    def _shaped(self, node: Node) -> bool:
        """Whether ``node`` only puts rows of images together: repeats a learned one for each, joins those of
        an image, or takes one of each.
        """
        if not self.run.length:
            return False
        held = [self.values[name] for name in node.inputs if name in self.values]
        shape = self.graph.weights[node.inputs[0]].shape if node.inputs[0] in self.graph.weights else ()
        count = max(self.run.rows // self.run.length, 1)
        if self._chosen(node):
            self._leave(node, count, held[0][1])
        elif _IMAGE in self.fed and node.op == "Expand" and len(shape) == 3:
            self._leave(node, count, shape[-1])
        elif _IMAGE in self.fed and node.op == "Concat" and held and node.attributes.get("axis") == 1:
            self._leave(node, sum(rows for rows, _ in held), held[-1][1])
        else:
            return False
        return True

    def _leave(self, node: Node, rows: int, width: int) -> None:
        for name in node.outputs:
            if name:
                self.values[name] = (rows, width)

    @staticmethod
    def _width_of(node: Node, operation: Operation) -> int:
        if operation.kind in ("product", "head"):
            return operation.sizes[2] // (2 if node.attributes.get("gated") else 1)
        return operation.moved // max(8 * operation.sizes[0], 1)

    def _lookup(self, node: Node) -> None:
        if node.op == "QuantizedRows":
            width = node.attributes["K"]
        else:
            shapes = [self.graph.weights[name].shape for name in node.inputs if name in self.graph.weights]
            tables = [shape for shape in shapes if len(shape) >= 2]
            if not tables:
                return
            width = tables[0][1] * (tables[0][2] if len(tables[0]) > 2 else 1)
        op = "Gather" if node.op == "GatherBlockQuantized" else node.op
        self.found.counts[by_rows(op, self.run.rows, width)] += 1
        self._leave(node, self.run.rows, width)

    def _attention(self, node: Node, rows: int, width: int) -> Operation:
        self.found.attended = self.found.attended or rows
        heads = node.attributes.get("num_heads", 1)
        if node.op == "EncoderAttention":
            dim = width // 3 // heads
            exact = bool(node.attributes.get("exact", 1))
            return encoder_attention(rows, self.run.length or rows, heads, dim, exact=exact)
        layer = next(self.layers, None)
        if layer is None:  # in standard operators
            heads = node.attributes.get("q_num_heads", heads)
            keys, shared = self._keys(node, rows), node.attributes.get("kv_num_heads", heads)
            if len(node.inputs) > 1 and node.inputs[1] in self.grown:
                heads = shared = next(self.written).kv_heads
            if keys is not None:
                self.found.taken["Attention"] = "GroupQueryAttention"
                sizes = (heads, shared, width // heads)
                return cached_attention("GroupQueryAttention", "float32", rows, max(keys - rows, 0), *sizes)
            return plain_attention(rows, self.run.length or rows, heads, width // heads, kv_heads=shared)
        window = node.attributes.get("local_window_size", -1)
        sizes = (heads, layer.kv_heads, layer.head_dim)
        return cached_attention(node.op, self.kv_dtype, rows, self.run.past, *sizes, window=window)

    def _keys(self, node: Node, rows: int) -> int | None:
        """The keys of an attention whose queries are others: what was written before and now, what was read,
        or of one image the tokens; None of an encoder's own.
        """
        if len(node.inputs) > 4 and node.inputs[4]:
            return self.run.past + rows
        read = self.values.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if read is not None and node.inputs[1] in self.grown:
            return read[0]
        if read is not None and node.inputs[1] in self.fed:
            return read[0]
        return self.run.length if read is not None and read[0] > rows else None

    def _elementwise(self, node: Node, rows: int, width: int) -> None:
        if width < 2:
            return
        op = node.op
        if op not in _PASSES and op not in _MEASURED:
            self.found.assumed.add(op)
            op = "Add"
        self.found.counts[by_rows(op, rows, width, _PASSES.get(op, 2))] += 1


def operations_of(graph: GraphFile, bundle: Bundle, run: Run) -> Operations:
    """What ``run`` of the graph of ``bundle`` does, of an encoder–decoder that of its decoder."""
    if bundle.kind == "decoder":
        section = bundle.decoder
        return _Walk(graph, run, list(section.layers), section.kv_dtype).go()
    if bundle.kind == "encoder":
        image = bundle.encoder.image
        return _reading(
            graph, run, {} if image is None or image.size is None else {_IMAGE: (prod(image.size), 3)}
        )
    read = {
        f"{_CROSS}{index}.{part}": (run.length, layer.kv_heads * layer.head_dim)
        for index, layer in enumerate(bundle.encoder_decoder.layers)
        for part in ("key", "value")
    }
    return _Walk(graph, run, fed=read, written=list(bundle.encoder_decoder.layers)).go()


def reading_of(graph: GraphFile, bundle: Bundle, run: Run) -> Operations:
    """What ``run`` of the encoder of ``bundle`` does, whose ``graph`` it is."""
    sound = bundle.encoder_decoder.sound
    return _reading(graph, run, {} if sound is None else {_SOUND: (sound.samples, 1)})


def _reading(graph: GraphFile, run: Run, each: dict[str, _Value]) -> Operations:
    """Of an encoder: ``each`` text, image or sound is fed so many rows of so many numbers."""
    count = max(run.rows // run.length, 1) if run.length else 1
    fed = {name: (count * rows, width) for name, (rows, width) in each.items()}
    return _Walk(graph, run, fed=fed).go()
