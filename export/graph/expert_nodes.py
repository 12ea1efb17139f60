"""The experts of a block as nodes: each expert's products run on the rows that the router sends to it.

A token's row is repeated for each expert that it goes through; these rows, sorted by expert, go through the
experts, and what comes of them is put back in the order of the tokens and added up as the router weighs it. A
product without rows reads no weights, so that a step of one token reads those of its own experts alone.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...compress.model.block_anatomy import BlockAnatomy, Experts, Mlp, RouterForm
from ...compress.numbers.scheme import Scheme
from .build import Build
from .linear.linear import transposed_product
from .linear.tiles import gates_together, routed_product, tiled
from .mlp_nodes import SILU, mlp

# What transformers adds to the sum of weights before it divides by it.
_LEAST = 1e-20


def mixture(build: Build, value: ir.Value, block: BlockAnatomy, experts: Experts) -> ir.Value:
    """What the experts of ``block`` make of ``value [batch, seq, hidden]``."""
    graph, name, hidden = build.graph, experts.prefix, build.anatomy.hidden_size
    rows = graph.node("Reshape", f"{name}.rows", [value, _numbers(build, -1, hidden)])
    scores, chosen = _routed(build, rows, experts)
    places, counts = _by_expert(build, chosen, experts)
    divisor = graph.constant(f"experts.chosen.{experts.chosen}", np.array(experts.chosen))
    tokens = graph.node("Div", f"{name}.tokens", [places, divisor])
    repeated = graph.node("Gather", f"{name}.repeated", [rows, tokens], axis=0)
    found = _of_experts(build, repeated, counts, block, experts)
    back = graph.node("Unsqueeze", f"{name}.back", [places, _numbers(build, 1)])
    empty = graph.node("ConstantOfShape", f"{name}.empty", [graph.node("Shape", f"{name}.like", [found])])
    ordered = graph.node("ScatterND", f"{name}.ordered", [empty, back, found])
    each = graph.node("Reshape", f"{name}.each", [ordered, _numbers(build, -1, experts.chosen, hidden)])
    weights = graph.node("Unsqueeze", f"{name}.weights", [scores, _numbers(build, 1)])
    total = graph.node("MatMul", f"{name}.total", [weights, each])
    out = graph.node("Reshape", f"{name}.out", [total, graph.node("Shape", f"{name}.shape", [value])])
    if experts.shared is None:
        return out
    return graph.node("Add", f"{name}.sum", [out, _shared(build, value, experts, experts.shared)])


def _shared(build: Build, value: ir.Value, experts: Experts, part: Mlp) -> ir.Value:
    """What the shared expert makes of ``value``, weighed by its gate."""
    found, _ = mlp(build, value, part, part.down.name.rpartition(".")[0])
    name = experts.shared_gate
    if name is None:
        return found
    logit = transposed_product(build, value, build.vector(f"{name}.weight"), name)
    return build.graph.node(
        "Mul", f"{name}.scaled", [build.graph.node("Sigmoid", f"{name}.part", [logit]), found]
    )


def _routed(build: Build, rows: ir.Value, experts: Experts) -> tuple[ir.Value, ir.Value]:
    """Weights and indices ``[tokens, chosen]`` of the experts that ``rows [tokens, hidden]`` go to."""
    graph, name = build.graph, experts.router
    logits = transposed_product(build, rows, build.vector(f"{name}.weight"), name)
    if build.weights.has(f"{name}.bias"):
        logits = graph.node("Add", f"{name}.add_bias", [logits, build.vector(f"{name}.bias")])
    if experts.router_form is not None:
        return _by_sigmoid(build, logits, experts, experts.router_form)
    shares = graph.node("Softmax", f"{name}.softmax", [logits], axis=-1)
    count = _numbers(build, experts.chosen)
    scores, chosen = graph.outputs("TopK", f"{name}.top", [shares, count], 2, axis=-1)
    if experts.normalized:
        total = graph.node("ReduceSum", f"{name}.sum", [scores, _numbers(build, -1)], keepdims=1)
        scores = graph.node("Div", f"{name}.shares", [scores, total])
    return scores, chosen


def _by_sigmoid(
    build: Build, logits: ir.Value, experts: Experts, form: RouterForm
) -> tuple[ir.Value, ir.Value]:
    """:func:`_routed` of a router that goes by sigmoids and groups."""
    graph, name = build.graph, experts.router
    shares = graph.node("Sigmoid", f"{name}.sigmoid", [logits])
    choice = graph.node("Add", f"{name}.corrected", [shares, build.vector(form.correction)])
    if form.chosen_groups < form.groups:
        choice = _within_groups(build, choice, experts, form)
    _, chosen = graph.outputs("TopK", f"{name}.top", [choice, _numbers(build, experts.chosen)], 2, axis=-1)
    scores = graph.node("GatherElements", f"{name}.scores", [shares, chosen], axis=1)
    if experts.normalized:
        total = graph.node("ReduceSum", f"{name}.sum", [scores, _numbers(build, -1)], keepdims=1)
        least = graph.constant("experts.least", np.array(_LEAST, np.float32))
        total = graph.node("Add", f"{name}.total", [total, least])
        scores = graph.node("Div", f"{name}.shares", [scores, total])
    if form.scale != 1:
        factor = graph.constant(f"experts.scale.{form.scale}", np.array(form.scale, np.float32))
        scores = graph.node("Mul", f"{name}.scaled", [scores, factor])
    return scores, chosen


def _within_groups(build: Build, choice: ir.Value, experts: Experts, form: RouterForm) -> ir.Value:
    """``choice [tokens, experts]``, and no expert of the groups that are not among the best."""
    graph, name, size = build.graph, experts.router, experts.count // form.groups
    grouped = graph.node("Reshape", f"{name}.grouped", [choice, _numbers(build, -1, form.groups, size)])
    best, _ = graph.outputs("TopK", f"{name}.best", [grouped, _numbers(build, 2)], 2, axis=-1)
    ranks = graph.node("ReduceSum", f"{name}.ranks", [best, _numbers(build, -1)], keepdims=0)
    _, groups = graph.outputs(
        "TopK", f"{name}.groups", [ranks, _numbers(build, form.chosen_groups)], 2, axis=-1
    )
    depth, axis = _numbers(build, form.groups), _numbers(build, 1)
    values = graph.constant("experts.in_or_out", np.array([0, 1], np.float32))
    hits = graph.node("OneHot", f"{name}.hits", [groups, depth, values], axis=-1)
    among = graph.node("ReduceSum", f"{name}.among", [hits, axis], keepdims=0)
    mask = graph.node("Unsqueeze", f"{name}.mask", [among, _numbers(build, -1)])
    inside = graph.node("Cast", f"{name}.inside", [mask], to=ir.DataType.BOOL)
    never = graph.constant("experts.never", np.array(-np.inf, np.float32))
    kept = graph.node("Where", f"{name}.kept", [inside, grouped, never])
    return graph.node("Reshape", f"{name}.choice", [kept, _numbers(build, -1, experts.count)])


def _by_expert(build: Build, chosen: ir.Value, experts: Experts) -> tuple[ir.Value, ir.Value]:
    """The places in ``chosen [tokens, chosen]``, flat, of one expert after the other, ``[tokens · chosen]``,
    and how many each expert has, ``[experts]``.
    """
    graph, name = build.graph, experts.prefix
    indices = graph.constant(f"experts.{experts.count}", np.arange(experts.count)[:, None])
    flat = graph.node("Reshape", f"{name}.flat", [chosen, _numbers(build, 1, -1)])
    hits = graph.node("Equal", f"{name}.hits", [indices, flat])
    found = graph.node("NonZero", f"{name}.found", [hits])  # row after row of hits
    second = graph.constant("experts.second", np.array(1))
    places = graph.node("Gather", f"{name}.places", [found, second], axis=0)
    ones = graph.node("Cast", f"{name}.ones", [hits], to=ir.DataType.INT64)
    return places, graph.node("ReduceSum", f"{name}.counts", [ones, _numbers(build, 1)], keepdims=0)


def _of_experts(
    build: Build, rows: ir.Value, counts: ir.Value, block: BlockAnatomy, experts: Experts
) -> ir.Value:
    """``rows [rows, hidden]`` behind the experts, of which each has as many as ``counts [experts]`` says."""
    mlps, name, reads = list(block.expert_mlps()), experts.prefix, build.graph.read_per_token
    known = set(reads)
    schemes = _common_schemes(build, mlps)
    if schemes is None:
        found = _one_by_one(build, rows, counts, mlps, name)
    else:
        pairs, downs = [mlp.projections for mlp in mlps], [[mlp.down] for mlp in mlps]
        inner = routed_product(build, rows, counts, pairs, schemes[0], f"{name}.gate_up", gated=True)
        found = routed_product(build, inner, counts, downs, schemes[1], f"{name}.down")
    for weight in reads.keys() - known:
        reads[weight] = int(experts.share * reads[weight])
    return found


def _common_schemes(build: Build, mlps: Sequence[Mlp]) -> tuple[Scheme, Scheme] | None:
    """Those of gate and up, and of down, where two products can serve all experts; else None."""
    first, scheme = mlps[0], build.weights.scheme
    if first.inner_norm is not None or first.gate_up is not None or first.activation not in SILU:
        return None
    if not (gates_together(build, first.projections) and tiled(build, first.down.name)):
        return None
    found = {tuple(scheme(one.name) for one in (*mlp.projections, mlp.down)) for mlp in mlps}
    up, down = scheme(first.up.name), scheme(first.down.name)
    return (up, down) if len(found) == 1 and up is not None and down is not None else None


def _one_by_one(build: Build, rows: ir.Value, counts: ir.Value, mlps: Sequence[Mlp], name: str) -> ir.Value:
    """Each expert's nodes over its part of ``rows``."""
    parts = build.graph.outputs("Split", f"{name}.split", [rows, counts], len(mlps), axis=0)
    outputs = []
    for part, expert in zip(parts, mlps, strict=True):
        build.int8_zeros = None  # another number of rows
        module = expert.down.name.rpartition(".")[0]
        out, bias = mlp(build, part, expert, module)
        outputs.append(out if bias is None else build.graph.node("Add", f"{module}.add_bias", [out, bias]))
    build.int8_zeros = None
    return build.graph.node("Concat", f"{name}.joined", outputs, axis=0)


def _numbers(build: Build, *numbers: int) -> ir.Value:
    return build.graph.constant(f"numbers.{'.'.join(map(str, numbers))}", np.array(numbers))
