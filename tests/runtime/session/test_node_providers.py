"""Placement read back: from a real session, and from one that a provider has left half of."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from edgepress.cli.verbs.generate import command as generate
from edgepress.runtime.session import session as sessions
from edgepress.runtime.session.node_providers import RECORDED, misplaced, placed
from edgepress.runtime.session.session import open_session


def _part(provider: str, *nodes: tuple[str, str]) -> Any:
    found = [SimpleNamespace(name=name, op_type=op) for name, op in nodes]
    return SimpleNamespace(ep_name=provider, get_nodes=lambda: found)


def _session(*parts: Any) -> Any:
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


def test_every_node_of_a_real_graph_is_told(decoder_bundle: Path) -> None:
    graph = decoder_bundle / "model.onnx"
    session = open_session(graph, threads=1, config=RECORDED)
    [(provider, nodes)] = placed(session).items()
    assert provider == "CPUExecutionProvider"
    ops = [op for _, op in nodes]
    assert "MatMul" in ops and "Shape" in ops
    assert misplaced(session, ("CPUExecutionProvider",)) == ""
    found = misplaced(session, ("CUDAExecutionProvider",))
    assert "MatMul, CPUExecutionProvider" in found and "Shape" not in found


def test_work_on_another_provider_is_named_and_shapes_are_not() -> None:
    cuda = _part("CUDAExecutionProvider", ("a", "MatMul"))
    cpu = _part("CPUExecutionProvider", ("mask.shape", "Shape"), ("b", "GroupQueryAttention"))
    found = misplaced(_session(cuda, cpu), ("CUDAExecutionProvider",))
    assert "1 nodes do not run on CUDAExecutionProvider" in found
    assert "b (GroupQueryAttention, CPUExecutionProvider)" in found and "mask" not in found
    assert misplaced(_session(cuda, cpu), ("TensorrtExecutionProvider", "CUDAExecutionProvider")) != ""
    assert misplaced(_session(cuda), ("TensorrtExecutionProvider", "CUDAExecutionProvider")) == ""


def test_what_cuda_leaves_of_a_decoder_is_no_work() -> None:
    """As onnxruntime-gpu 1.31 places the graph of a Llama with 4 bits: it has no ArgMax of a mask."""
    mask = ("columns.skipped", "ArgMax")
    left = [("total", "Gather"), ("total.int32", "Cast"), ("total.scalar", "Squeeze"), ("kept", "Neg"), mask]
    cuda = _part("CUDAExecutionProvider", ("head", "MatMulNBits"), ("block", "GroupQueryAttention"))
    assert misplaced(_session(cuda, _part("CPUExecutionProvider", *left)), ("CUDAExecutionProvider",)) == ""


def test_many_are_counted() -> None:
    cpu = _part("CPUExecutionProvider", *((f"n{index}", "MatMul") for index in range(20)))
    assert "and 12 more" in misplaced(_session(cpu), ("CUDAExecutionProvider",))


def test_a_runtime_that_cannot_tell() -> None:
    assert placed(object()) == {} and misplaced(object(), ("CUDAExecutionProvider",)) == ""


def test_generate_warns(decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sessions.PROVIDERS, "cuda", "CPUExecutionProvider")
    monkeypatch.setattr(sessions, "misplaced", lambda *_: "2 nodes do not run on it: a, b")
    monkeypatch.setattr("edgepress.runtime.session.session._DEVICES", {})
    done = CliRunner().invoke(
        generate, [str(decoder_bundle), "-p", "a", "--max-new-tokens", "1", "--provider", "cuda", "--no-chat"]
    )
    assert done.exit_code == 0, done.output
    assert "WARNING: 2 nodes do not run on it: a, b" in done.stderr
