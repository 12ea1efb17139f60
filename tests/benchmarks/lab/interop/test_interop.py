"""The matrix of clients: a cell is measured in a process of the client's environment, and read in a table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.interop.artifacts import FAMILIES, Artifacts
from edgepress.benchmarks.lab.interop.cells import Cell, clients, concerns, run_client
from edgepress.benchmarks.lab.interop.table import table
from edgepress.benchmarks.lab.peers.workspace import Workspace


@pytest.mark.chain
@pytest.mark.slow  # three families and a process; processes of other tools are tested beside ../peers
def test_cells_of_a_client_that_is_installed_here(tmp_path: Path) -> None:
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "transformers").symlink_to(sys.prefix)
    workspace, client = Workspace(tmp_path), clients()["transformers"]
    made = [Artifacts(tmp_path / "artifacts", family) for family in ("gemma3_text", "electra", "mpnet")]
    for artifacts in made:
        artifacts.make()
    (made[1].path("checkpoint") / "config.json").unlink()
    cells = {
        (cell.family, cell.artifact): cell for cell in run_client(workspace, "transformers", client, made)
    }
    assert [artifact for family, artifact in cells if family == "gemma3_text"] == [
        "checkpoint",
        "gptq",
        "awq",
    ]
    names = ("gemma3_text", "electra", "mpnet")
    decoder, refused, encoder = (cells[name, "checkpoint"] for name in names)
    assert refused.refusal and refused.difference is None
    for cell in (decoder, encoder):
        assert not cell.refusal and cell.difference is not None and cell.difference < 1e-5
    assert (decoder.tokens, encoder.tokens) == (True, None)


def test_every_family_has_a_client_and_every_client_a_family(tmp_path: Path) -> None:
    for family in FAMILIES:
        artifacts = Artifacts(tmp_path, family)
        assert any(concerns(client, artifacts) for client in clients().values())
    for client in clients().values():
        assert any(concerns(client, Artifacts(tmp_path, family)) for family in FAMILIES)
        assert client.__doc__ and client.PACKAGES


def test_a_table_shows_differences_other_tokens_and_refusals() -> None:
    cells = [
        Cell("llama", "onnx", "optimum", difference=2e-7, tokens=True),
        Cell("llama", "onnx", "openvino", refusal="no operator `MatMulNBits`"),
        Cell("gpt2", "onnx", "optimum", difference=3e-2, tokens=False),
        Cell("bert", "onnx", "optimum", difference=2e-3),
    ]
    assert table(cells).splitlines() == [
        "| | openvino (standard bundle) | optimum (standard bundle) |",
        "|---|---|---|",
        "| llama | refused | 2e-7 |",
        "| gpt2 |  | 3e-2, other tokens |",
        "| bert |  | 2e-3 (rounded) |",
        "",
        "Refusals:",
        "",
        "- openvino: `no operator MatMulNBits`",
    ]
