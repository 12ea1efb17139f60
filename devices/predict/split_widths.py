"""The widths of the parts into which a ``Split`` takes rows: those that its second input says, as queries of
more heads are wider than the keys and values that they share.
"""

from __future__ import annotations

from ...errors import BundleError
from ...runtime.bundle.graph_file import GraphFile, Node


def split_widths(graph: GraphFile, node: Node, width: int) -> list[int]:
    """Of each output of ``node``, which splits rows of ``width`` numbers; equal ones where it says no
    sizes.
    """
    count = len(node.outputs)
    if len(node.inputs) < 2 or not node.inputs[1]:
        return [width // max(count, 1)] * count
    weight = graph.weights.get(node.inputs[1])
    sizes = () if weight is None else weight.values
    if len(sizes) != count or min(sizes) < 0 or not sum(sizes):
        raise BundleError(
            f"a Split into {count} parts has the sizes {list(sizes)}",
            why="what follows each part is predicted from its size",
            fix="export the model again",
        )
    return [width * size // sum(sizes) for size in sizes]
