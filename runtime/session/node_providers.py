"""Where the nodes of a graph run, read back from ONNX Runtime once it has placed them.

A provider leaves nodes that it has no kernel for to those behind it, without a word: what should run on a GPU
may run on the CPU. What a graph computes about shapes, masks and positions is small, and the runtime keeps it
on the CPU on purpose.
"""

from typing import Any

# Recorded while a session is made, which costs a little: asked for where there is something to tell.
RECORDED = {"session.record_ep_graph_assignment_info": "1"}
_SMALL = frozenset(
    "Shape Size Gather Cast ReduceSum Sub Add Neg Slice Concat Reshape Squeeze Unsqueeze Expand Range "
    "Constant ConstantOfShape Identity ArgMax".split()
)
_NAMED = 8


def placed(session: Any) -> dict[str, list[tuple[str, str]]]:
    """Name and operator of each node by provider; empty where the runtime cannot tell, or was not asked to
    record it.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}  # an older ONNX Runtime
    found: dict[str, list[tuple[str, str]]] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes = found.setdefault(str(part.ep_name), [])
        nodes += [(str(node.name), str(node.op_type)) for node in part.get_nodes()]
    return found


def misplaced(session: Any, wanted: tuple[str, ...]) -> str:
    """A sentence that names the nodes which run on none of the providers ``wanted`` though they do more than
    compute shapes; "" when there are none.
    """
    where = [
        f"{name} ({op}, {provider})"
        for provider, nodes in placed(session).items()
        if provider not in wanted
        for name, op in nodes
        if op not in _SMALL
    ]
    if not where:
        return ""
    shown = ", ".join(where[:_NAMED])
    more = f" and {len(where) - _NAMED} more" if len(where) > _NAMED else ""
    return f"{len(where)} nodes do not run on {wanted[0]}: {shown}{more}"
