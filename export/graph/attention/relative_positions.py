"""What DeBERTa's attention adds to its scores: products of queries and keys with those of distances.

What q and k make of each distance does not depend on the text, and is stored. A text of ``seq`` tokens has
``2 · seq - 1`` distances; the products of a query with all of them, one row a query, become scores
``[seq, seq]`` by leaving out as many numbers as each row is shifted by, without an index.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from ....compress.model.anatomy import RelativePositions
from ....compress.model.block_anatomy import Attention, Linear
from ..build import Build
from ..graph_writer import Array
from .attention import factor


@dataclass(frozen=True)
class Distances:
    """Rows of the vectors of distances that a text has.

    Attributes:
        of_keys, of_queries: ``[2 · seq - 1]``, of the keys that a query meets, from the farthest before it to
            the farthest behind it, and of the queries that a key meets.
        seq: ``[1]`` int64; ``last`` is one less.
    """

    of_keys: ir.Value
    of_queries: ir.Value
    seq: ir.Value
    last: ir.Value


def distances(build: Build, mask: ir.Value) -> Distances | None:
    """Those of texts as long as ``mask [batch, seq]``; None where attention reads none."""
    graph, relative = build.graph, build.anatomy.relative
    if relative is None:
        return None
    longest = build.anatomy.max_positions
    rows = rows_of_distances(relative, longest)
    one = graph.constant("distance.one", np.array([1], np.int64))
    middle = graph.constant("distance.middle", np.array([longest], np.int64))
    seq = graph.node("Shape", "distance.seq", [mask], start=1, end=2)
    last = graph.node("Sub", "distance.last", [seq, one])
    begin = graph.node("Sub", "distance.begin", [middle, seq])
    end = graph.node("Add", "distance.end", [middle, last])

    def within(name: str, table: Array) -> ir.Value:
        return graph.node(
            "Slice", f"distance.{name}", [graph.constant(f"distance.rows.{name}", table), begin, end]
        )

    return Distances(within("keys", rows[::-1].copy()), within("queries", rows), seq, last)


def rows_of_distances(relative: RelativePositions, longest: int) -> Array:
    """The row for queries that lie ``1 - longest`` to ``longest - 1`` tokens after their key."""
    after, span = torch.arange(1 - longest, longest), relative.span
    if relative.farthest is not None:
        near, distance = span // 2, after.abs()
        # In float32, as the model rounds it.
        far = torch.log(distance.clamp_min(1) / near) / torch.log(
            torch.tensor((relative.farthest - 1) / near)
        )
        shared = torch.ceil(far * (near - 1)) + near
        after = torch.where(distance <= near, after, (shared * after.sign()).to(torch.int64))
    return (after + span).clamp(0, 2 * span - 1).numpy()


def scores_of_distances(
    build: Build, found: Distances, query: ir.Value, key: ir.Value, part: Attention, name: str
) -> ir.Value:
    """``[batch, heads, seq, seq]`` of ``query`` and ``key [batch, seq, heads · head_dim]``."""
    graph = build.graph
    to_keys = _products(build, query, found.of_keys, part, part.k, f"{name}.keys")
    to_queries = _products(build, key, found.of_queries, part, part.q, f"{name}.queries")
    rows = _shifted(build, to_keys, found, f"{name}.keys")
    columns = _shifted(build, to_queries, found, f"{name}.queries")
    turned = graph.node("Transpose", f"{name}.turned", [columns], perm=[0, 1, 3, 2])
    return graph.node("Add", f"{name}.distances", [rows, turned])


def _products(
    build: Build, states: ir.Value, rows: ir.Value, part: Attention, linear: Linear, name: str
) -> ir.Value:
    """``[batch, heads, seq, 2 · seq - 1]`` of ``states`` with what ``linear`` makes of distances."""
    graph, relative = build.graph, build.anatomy.relative
    assert relative is not None
    heads, size = part.heads, part.head_dim

    def stored() -> Array:
        table = _projected(build, relative, linear) * factor(part)
        return table.reshape(-1, heads, size).permute(1, 2, 0).contiguous().numpy()

    shape = [heads, size, 2 * relative.span]
    table = graph.weight(f"{linear.name}.distances", ir.DataType.FLOAT, shape, stored)
    wanted = graph.node("Gather", f"{name}.of_distances", [table, rows], axis=2)
    split = graph.constant(f"heads.{size}", np.array([0, 0, -1, size], np.int64))
    by_head = graph.node("Reshape", f"{name}.heads", [states, split])
    by_head = graph.node("Transpose", f"{name}.by_head", [by_head], perm=[0, 2, 1, 3])
    return graph.node("MatMul", f"{name}.products", [by_head, wanted])


def _projected(build: Build, relative: RelativePositions, linear: Linear) -> torch.Tensor:
    """``[2 · span, out]``, the vectors of distances through the module ``linear``."""
    read, norm = build.weights.tensor, relative.norm
    table = read(f"{relative.table}.weight")
    if norm is not None:
        weight, bias = read(f"{norm.name}.weight"), read(f"{norm.name}.bias")
        table = torch.nn.functional.layer_norm(table, weight.shape, weight, bias, norm.eps)
    made = table @ read(f"{linear.name}.weight").T
    return made + read(f"{linear.name}.bias") if linear.bias else made


def _shifted(build: Build, products: ir.Value, found: Distances, name: str) -> ir.Value:
    """``[batch, heads, seq, seq]``: row ``i`` of ``products [batch, heads, seq, 2 · seq - 1]`` from number
    ``seq - 1 - i`` on.
    """
    graph = build.graph
    constants = {
        "pad": [0, 0, 0, 0, 0, 0, 0, 1],
        "flat": [0, 0, -1],
        "same": [0, 0],
        "rest": [-1],
        "zero": [0],
        "row": [2],
        "column": [3],
    }
    known = {
        key: graph.constant(f"shift.{key}", np.array(value, np.int64)) for key, value in constants.items()
    }
    wider = graph.node("Pad", f"{name}.wider", [products, known["pad"]])
    flat = graph.node("Reshape", f"{name}.flat", [wider, known["flat"]])
    cut = graph.node("Slice", f"{name}.cut", [flat, found.last, known["rest"], known["row"]])
    shape = graph.node("Concat", f"{name}.shape", [known["same"], found.seq, known["rest"]], axis=0)
    rows = graph.node("Reshape", f"{name}.rows", [cut, shape])
    return graph.node("Slice", f"{name}.shifted", [rows, known["zero"], found.seq, known["column"]])
