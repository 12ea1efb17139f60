"""The account of made-up kernels, where every sum is known, and its tables."""

from typing import Any

import pytest
from edgepress.benchmarks.page.account_table import MOST_ROWS, account_tables
from edgepress.benchmarks.speed.per_op import SHARED, accounts, place, with_bandwidth
from edgepress.benchmarks.speed.roofline import multiply_adds
from edgepress.benchmarks.speed.trace import Kernel
from edgepress.runtime.bundle.graph_file import GraphFile, Node

PACKED = Node("MatMulNBits", (), {"N": 1000, "K": 1024, "bits": 4, "block_size": 128, "accuracy_level": 4})
BYTES = 1000 * 8 * (64 + 8)
GRAPH = GraphFile({f"model.layers.{layer}.mlp.up": PACKED for layer in range(2)})


def step(run: int, ms: float) -> list[Kernel]:
    """One run of two layers and a node outside them."""
    cpu = "CPUExecutionProvider"
    layers = [
        kernel
        for layer in range(2)
        for kernel in (
            Kernel(f"model.layers.{layer}.mlp.up", "MatMulNBits", cpu, ms, run),
            Kernel(f"model.layers.{layer}.mlp.act", "QuickGelu", cpu, ms / 10, run),
        )
    ]
    return [*layers, Kernel("kept.0", "Slice", cpu, 0.01, run)]


@pytest.fixture
def found() -> dict[str, Any]:
    # Two runs for the prompt, then steps of which one was disturbed; and again, with a prompt that was.
    units = [
        [kernel for run, ms in enumerate(unit, 1) for kernel in step(run, ms)]
        for unit in ([4, 6, 1, 1, 50], [4, 90, 1, 1, 1], [4, 6, 1, 30, 1])
    ]
    return accounts(units, GRAPH, 2, {"prefill": [25.0], "decode": [2.5, 90.0, 2.5]})


def test_a_phase_takes_the_median_of_its_steps(found: dict[str, Any]) -> None:
    prefill, decode = found["prefill"], found["decode"]
    assert prefill["kernel_ms"] == pytest.approx(2 * (10 + 1) + 0.02)
    assert decode["kernel_ms"] == pytest.approx(2 * 1.1 + 0.01)
    assert (prefill["weight_bytes"], decode["weight_bytes"]) == (4 * BYTES, 2 * BYTES)
    assert (decode["wall_ms"], decode["nodes"]) == (2.5, 5)
    assert decode["between_ms"] == pytest.approx(2.5 - 2.21)


def test_every_view_sums_to_the_whole(found: dict[str, Any]) -> None:
    for phase in with_bandwidth(found, 1e9).values():
        for view in ("by_op", "by_part", "by_layer"):
            rows = phase[view]
            for key in ("weight_bytes", "kv_bytes", "nodes"):
                assert sum(row[key] for row in rows) == phase[key]
            assert sum(row["ms"] for row in rows) == pytest.approx(phase["kernel_ms"])
            assert sum(row["share"] for row in rows) == pytest.approx(1)
            missing = sum(row["missing_ms"] for row in rows) + phase["between_ms"]
            assert missing == pytest.approx(phase["missing_ms"])


def test_views(found: dict[str, Any]) -> None:
    decode = found["decode"]
    assert [row["op"] for row in decode["by_op"]] == ["MatMulNBits", "QuickGelu", "Slice"]
    assert decode["by_part"][0] | {"share": 0} == {
        "part": "mlp.up",
        "op": "MatMulNBits",
        "ms": 2.0,
        "share": 0,
        "nodes": 2,
        "weight_bytes": 2 * BYTES,
        "kv_bytes": 0,
        "multiply_adds": 0,
        "compute_ms": 0,
    }
    assert [row["layer"] for row in decode["by_layer"]] == ["model.layers.0", "model.layers.1", SHARED]


def test_rates(found: dict[str, Any]) -> None:
    row = with_bandwidth(found, 1.152e9)["decode"]["by_op"][0]
    assert row["gb_per_second"] == pytest.approx(2 * BYTES / 2e-3 / 1e9)
    assert row["fraction"] == pytest.approx(0.5)
    assert row["missing_ms"] == pytest.approx(1.0)
    unknown = with_bandwidth(found, None)["decode"]["by_op"]
    assert unknown[0]["gb_per_second"] == row["gb_per_second"]
    assert [(entry["fraction"], entry["missing_ms"]) for entry in unknown] == [(None, None)] * 3
    assert unknown[1]["gb_per_second"] is None


@pytest.mark.parametrize(
    "node, expected",
    [
        ("model.layers.3.mlp.down_proj", ("model.layers.3", "mlp.down_proj")),
        ("transformer.h.11.attn", ("transformer.h.11", "attn")),
        ("encoder.layer.0.attention/0.int8.abs", ("encoder.layer.0", "attention/0.int8.abs")),
        ("kept.0", (SHARED, "kept.0")),
        ("head", (SHARED, "head")),
        ("", (SHARED, "")),
    ],
)
def test_place(node: str, expected: tuple[str, str]) -> None:
    assert place(node) == expected


def test_tables(found: dict[str, Any]) -> None:
    bandwidth = {"gb_per_second": 1.152}
    prefill, _, decode, operators, layers = account_tables(
        {"bandwidth": bandwidth, "phases": with_bandwidth(found, 1.152e9)}
    )
    assert prefill.title.startswith("prefill") and "one token in 2.50 ms" in decode.title
    assert "5 kernels take 2.21 ms; 0.290 ms (12 %) pass between them" in decode.note
    assert "1.15 GB/s measured here" in decode.note and "1.50 ms are missing" in decode.note
    assert decode.rows[0] == ("mlp.up", "2.00", "90.5 %", "1.15", "0.576", "50 %", "1.00")
    assert [row[0] for row in operators.rows] == ["MatMulNBits", "QuickGelu", "Slice"]
    assert [row[0] for row in layers.rows] == ["0", "1", SHARED]
    assert all(len(row) == len(table.columns) for table in (prefill, layers) for row in table.rows)


def test_what_computes_is_not_judged_by_bandwidth() -> None:
    def products(run: int, ms: float, rows: int) -> list[Kernel]:
        given = ((("float", (rows, 1000)),), 0, 4 * rows * 500)
        return [Kernel(f"layer.{n}.up", "MatMul", "CPU", ms + n, run, *given) for n in range(2)]

    units = [[*products(1, 1.0, 64), *products(2, 0.5, 1)]]
    walls = {"batch": [5.0], "single": [2.0]}
    found = with_bandwidth(accounts(units, GraphFile(), 1, walls), 1e12)
    batch, single = found["batch"], found["single"]
    rate = 64 * 1000 * 500 / 1.0  # of the faster of the two
    assert batch["multiply_adds"] == 2 * 64 * 1000 * 500 and batch["compute_ms"] == pytest.approx(2.0)
    assert batch["by_op"][0]["fraction"] == pytest.approx(2 / 3) and batch["missing_ms"] == pytest.approx(3)
    assert single["by_op"][0]["missing_ms"] == pytest.approx(2 - 2 * 1000 * 500 / rate)
    note = account_tables({"bandwidth": {"gb_per_second": 1e3}, "phases": found})[0].note
    assert "0.0640 G multiply-adds need 2.00 ms at the rate of the fastest product" in note
    assert note.endswith("so 3.00 ms are missing.")
    batch["missing_ms"] = -1.0  # as other work makes it that ran while the rate was measured
    note = account_tables({"bandwidth": {"gb_per_second": 1e3}, "phases": found})[0].note
    assert note.endswith("measured too low, as beside other work.")


def test_attention_over_a_text_counts_scores_and_sums() -> None:
    shapes = tuple(("float", (2, 10, 64)) for _ in range(3))
    assert multiply_adds(Kernel("a", "MultiHeadAttention", "CPU", 1.0, 1, shapes)) == 2 * 2 * 10 * 10 * 64
    assert multiply_adds(Kernel("a", "Add", "CPU", 1.0, 1, shapes)) == 0


def test_a_trace_slower_than_the_step_says_so(found: dict[str, Any]) -> None:
    found["decode"]["between_ms"] = -0.1
    tables = account_tables({"bandwidth": None, "phases": with_bandwidth(found, None)})
    assert "more than the step itself" in tables[2].note
    assert "GB/s measured here" not in tables[2].note


def test_many_parts_end_in_one_row() -> None:
    kernels = [
        Kernel(f"part{n}", "Add", "CPUExecutionProvider", 1 + n, run) for run in (1, 2) for n in range(40)
    ]
    found = with_bandwidth(accounts([kernels], GraphFile(), 1, {"batch": [900.0], "single": [900.0]}), 1e9)
    batch, *_ = account_tables({"bandwidth": {"gb_per_second": 1.0}, "phases": found})
    assert len(batch.rows) == MOST_ROWS + 1
    assert batch.rows[-1][0] == f"{40 - MOST_ROWS} others"
