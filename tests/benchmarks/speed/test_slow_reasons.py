"""Each reason for a slow graph, planted alone."""

from __future__ import annotations

from typing import Any

import pytest
from edgepress.benchmarks.speed.slow_reasons import slow_reasons
from edgepress.runtime.bundle.graph_file import GraphFile, Node

VNNI = ("avx2", "avx512f", "avx512_vnni")
PACKED = {"N": 64, "K": 256, "bits": 4, "block_size": 128, "accuracy_level": 4}
BUSY = [{"op": "MatMulNBits", "share": 0.8}, {"op": "Softmax", "share": 0.2}]


def reasons(*nodes: Node, **changes: Any) -> list[str]:
    graph = GraphFile({f"n{index}": node for index, node in enumerate(nodes)})
    known: dict[str, Any] = {"isa": VNNI, "machine": "x86_64", "cache_bytes": 1 << 25, "float_bytes": 1 << 30}
    return slow_reasons(graph, **(known | {"time_by_op": BUSY} | changes))


def packed(**changes: int) -> Node:
    return Node("MatMulNBits", (), PACKED | changes)


def test_nothing_to_say_of_a_good_graph() -> None:
    assert reasons(packed(), packed()) == []


@pytest.mark.parametrize(
    "nodes, changes, expected",
    [
        ([packed(), packed(accuracy_level=0)], {}, "1 of 2 products compute on float activations"),
        ([packed(bits=2, block_size=256)], {}, "no integer kernel for 2 bits in groups of 256 (1 products)"),
        ([packed(block_size=16)], {}, "groups of 16 are small: the kernel reads 8 bits a weight where"),
        ([packed()], {"isa": ("avx2",)}, "this CPU has no VNNI"),
        ([packed()], {"isa": ("fma",)}, "this CPU has no AVX2"),
        ([packed()], {"isa": ("asimd",), "machine": "aarch64"}, "no dot product instructions"),
        ([Node("FusedMatMul", (), {})], {}, "1 of 1 products are in float32"),
        ([packed()], {"float_bytes": 1 << 20}, "1.0 MB of float32 weights fit the cache of 33.6 MB"),
        ([packed()], {"time_by_op": [{"op": "Softmax", "share": 0.9}]}, "matrix products are only 0 %"),
    ],
)
def test_one_reason_at_a_time(nodes: list[Node], changes: dict[str, Any], expected: str) -> None:
    [found] = reasons(*nodes, **changes)
    assert expected in found


def test_what_the_machine_does_not_tell_is_no_reason() -> None:
    assert reasons(packed(), isa=(), machine="aarch64", cache_bytes=None, time_by_op=[]) == []
