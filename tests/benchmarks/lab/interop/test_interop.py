"""The matrix of clients: a cell is measured in a process of the client's environment, kept with its day, and
read in a table.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import edgepress
import pytest
from edgepress.benchmarks.lab.interop.artifacts import Artifacts
from edgepress.benchmarks.lab.interop.cells import Cell, clients, concerns, run_client
from edgepress.benchmarks.lab.interop.families import FAMILIES
from edgepress.benchmarks.lab.interop.kept_cells import merged, read_cells, write_cells
from edgepress.benchmarks.lab.interop.kinds import ALL, READ_AND_WRITE
from edgepress.benchmarks.lab.interop.table import table, tables
from edgepress.benchmarks.lab.peers.workspace import Workspace
from edgepress.export.formats.onnx_hub import NOT_IN_OPTIMUM, NOT_IN_TRANSFORMERS_JS

KEPT = Path(edgepress.__file__).parent / "benchmarks" / "lab" / "results" / "raw" / "interop.jsonl"


@pytest.mark.parametrize(
    ("client", "form", "refused"),
    [
        ("transformers_js", "onnx_hub", NOT_IN_TRANSFORMERS_JS),
        ("transformers_js_browser", "onnx_hub", NOT_IN_TRANSFORMERS_JS),
        ("optimum", "onnx", NOT_IN_OPTIMUM),
        ("optimum", "onnx_hub", NOT_IN_OPTIMUM),
    ],
)
def test_cards_claim_the_cells_that_passed(client: str, form: str, refused: frozenset[str]) -> None:
    cells = [cell for cell in read_cells(KEPT) if (cell.client, cell.artifact) == (client, form)]
    # Encoder–decoders are opened in the layout of hubs alone.
    cells = [cell for cell in cells if form == "onnx_hub" or FAMILIES[cell.family][0] not in READ_AND_WRITE]
    assert cells
    for cell in cells:
        assert not cell.refusal or cell.family.partition(" ")[0] in refused, cell


@pytest.mark.chain
@pytest.mark.slow  # seven families and a process; processes of other tools are tested beside ../peers
def test_cells_of_a_client_that_is_installed_here(tmp_path: Path) -> None:
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "transformers").symlink_to(sys.prefix)
    workspace, client = Workspace(tmp_path), clients()["transformers"]
    names = ("gemma3_text", "electra", "mpnet", "bart", "whisper", "clip_text_model", "vit")
    made = {family: Artifacts(tmp_path / "artifacts", family) for family in names}
    for artifacts in made.values():
        artifacts.make()
    (made["electra"].path("checkpoint") / "config.json").unlink()
    cells = {
        (cell.family, cell.artifact): cell
        for cell in run_client(workspace, "transformers", client, list(made.values()))
    }
    assert [artifact for family, artifact in cells if family == "gemma3_text"] == [
        "checkpoint",
        "gptq",
        "awq",
    ]
    refused = cells["electra", "checkpoint"]
    assert refused.refusal and refused.difference is None
    for name in names:
        cell = cells[name, "checkpoint"]
        assert cell.date and cell.packages
        if name != "electra":
            assert not cell.refusal and cell.difference is not None and cell.difference < 1e-5, cell
            assert cell.tokens is (True if name in ("gemma3_text", "bart", "whisper") else None)


def test_every_family_has_a_client_and_every_client_a_family(tmp_path: Path) -> None:
    for family in FAMILIES:
        artifacts = Artifacts(tmp_path, family)
        assert any(concerns(client, artifacts) for client in clients().values())
    for client in clients().values():
        assert any(concerns(client, Artifacts(tmp_path, family)) for family in FAMILIES)
        assert client.__doc__ and client.PACKAGES and set(client.KINDS) <= set(ALL)
    assert {kind for kind, _ in FAMILIES.values()} == set(ALL)


def test_a_run_takes_the_place_of_its_own_cells_alone(tmp_path: Path) -> None:
    old = Cell("llama", "onnx", "node", difference=1e-3, date="2026-11-29")
    other = Cell("llama", "gguf", "llama_cpp", refusal="of two\u2028lines", date="2026-11-29")
    dropped = Cell("no family", "onnx", "node", difference=1e-3)
    new = replace(old, difference=1e-6, date="2026-11-30")
    write_cells(tmp_path / "cells.jsonl", [old, other, dropped])
    found = merged(read_cells(tmp_path / "cells.jsonl"), [new])
    assert found == [other, new]
    assert read_cells(tmp_path / "none.jsonl") == []


def test_a_table_shows_differences_other_tokens_and_refusals() -> None:
    cells = [
        Cell("llama", "onnx", "optimum", difference=2e-7, tokens=True),
        Cell("llama", "onnx", "openvino", refusal="no operator `MatMulNBits`"),
        Cell("gpt2", "onnx", "optimum", difference=3e-2, tokens=False),
        Cell("bert", "onnx", "optimum", difference=2e-3, date="2026-11-30", packages="optimum"),
    ]
    assert table(cells).splitlines() == [
        "| | openvino (standard bundle) | optimum (standard bundle) |",
        "|---|---|---|",
        "| llama | refused | 2e-7 |",
        "| gpt2 |  | 3e-2, other tokens |",
        "| bert |  | 2e-3 (rounded) |",
    ]
    page = tables(cells)
    assert page.index("### Decoders") < page.index("### Encoders of text") < page.index("### Refusals")
    assert "- gguf, gemma, gemma2, gemma3_text: its tokenizers are no byte-level BPE" in page
    both = [Cell("llama", "gguf", "llama_cpp", difference=3e-2, tokens=True), Cell("opt", "onnx", "optimum")]
    assert table(both).splitlines()[-1] == "| opt | not written | refused |"
    assert "- openvino (standard bundle), llama: `no operator MatMulNBits`" in page
    assert "- optimum: optimum (2026-11-30)" in page
