"""The matrix of clients: a cell is measured in a process of the client's environment, kept with its day, and
read in a table.
"""

import sys
from dataclasses import replace
from pathlib import Path

import edgepress
import pytest
from edgepress.benchmarks.lab.interop import cells as of_clients
from edgepress.benchmarks.lab.interop.artifacts import Artifacts
from edgepress.benchmarks.lab.interop.cells import Cell, _replies, clients, concerns, run_client
from edgepress.benchmarks.lab.interop.claims import claimed
from edgepress.benchmarks.lab.interop.families import FAMILIES
from edgepress.benchmarks.lab.interop.kept_cells import merged, read_cells, write_cells
from edgepress.benchmarks.lab.interop.kinds import ALL, READ_AND_WRITE
from edgepress.benchmarks.lab.interop.table import passed, table, tables
from edgepress.benchmarks.lab.peers.workspace import Workspace
from edgepress.export.formats.onnx_hub import NOT_IN_OPTIMUM, NOT_IN_TRANSFORMERS_JS
from edgepress.files.storage import write_json

KEPT = Path(edgepress.__file__).parent / "benchmarks" / "lab" / "results" / "raw" / "interop.jsonl"


def _here(work: Path, client: str) -> None:
    """This environment as that of the client."""
    (work / "environments").mkdir()
    Workspace(work).environment(client).symlink_to(sys.prefix)


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
    found = {cell.family.partition(" ")[0] for cell in cells if cell.refusal}
    assert found <= refused
    if form == "onnx_hub":  # a card does not say of a client that opens the family that it does not
        assert found == refused


def test_no_card_names_a_client_that_refused_the_family_or_answered_otherwise() -> None:
    cells = [cell for cell in read_cells(KEPT) if cell.claimed]
    assert len(cells) > 100
    assert [cell for cell in cells if not passed(cell)] == []


def test_what_an_artifact_says_of_a_client_is_read_from_it(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("from optimum.onnxruntime import ORTModelForCausalLM", encoding="utf-8")
    assert claimed(tmp_path, "onnx_hub", "optimum") is True
    assert claimed(tmp_path, "onnx_hub", "transformers_js") is False
    assert claimed(tmp_path, "onnx_hub", "node") is None
    assert claimed(tmp_path, "onnx", "onnxruntime_genai") is False
    (tmp_path / "genai_config.json").touch()
    assert claimed(tmp_path, "onnx", "onnxruntime_genai") is True
    for answer, said in (("yes", True), ("no", False), ("differs", None)):
        write_json(tmp_path / "edgepress.json", {"opens_in": {"transformers": {"answer": answer}}})
        assert claimed(tmp_path, "checkpoint", "transformers") is said


@pytest.mark.chain
@pytest.mark.parametrize("name", ["onnxruntime_genai", "transformers"])
def test_cells_of_the_clients_that_a_developer_has(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    _here(tmp_path, name)
    chosen = [Artifacts(tmp_path / "artifacts", family) for family in ("llama", "bert")]
    for artifacts in chosen:
        artifacts.make()
    cells = list(run_client(Workspace(tmp_path), name, clients()[name], chosen))
    whole = {cell.family: cell for cell in cells if cell.artifact in ("onnx", "checkpoint")}
    assert set(whole) == ({"llama"} if name == "onnxruntime_genai" else {"llama", "bert"})
    for cell in whole.values():
        assert passed(cell) and cell.tokens is not False and cell.claimed is True, cell


@pytest.mark.chain
@pytest.mark.slow  # seven families and a process; processes of other tools are tested beside ../peers
def test_cells_of_a_client_that_is_installed_here(tmp_path: Path) -> None:
    _here(tmp_path, "transformers")
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


def test_a_client_that_names_families_is_asked_about_these_alone(tmp_path: Path) -> None:
    named = {name: client for name, client in clients().items() if hasattr(client, "FAMILIES")}
    assert "browser_webgpu_software" in named
    for client in named.values():
        asked = {family for family in FAMILIES if concerns(client, Artifacts(tmp_path, family))}
        assert asked == set(client.FAMILIES)


@pytest.mark.parametrize("given", [[[1.0, 2.0]], [[1.0], [2.0]], []])
def test_numbers_of_another_shape_are_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[list[float]]
) -> None:
    artifacts, client = Artifacts(tmp_path, "bert tagger"), clients()["node"]
    artifacts.path("onnx").mkdir(parents=True)
    write_json(tmp_path / "bert tagger" / "task.json", {"wanted": {"onnx": {"values": [[1.0, 2.0, 3.0]]}}})
    (artifacts.path("onnx") / "README.md").write_text("runs in any client of ONNX Runtime", encoding="utf-8")
    monkeypatch.setattr(of_clients, "_replies", lambda *_: iter([{"values": given}]))
    (cell,) = run_client(Workspace(tmp_path), "node", client, [artifacts])
    assert cell.refusal == f"it gives rows of {[len(row) for row in given]} numbers, and ours have [3]"
    assert cell.claimed and cell.difference is None


@pytest.mark.chain
@pytest.mark.parametrize(
    ("second", "refusal"),
    [
        ("print(json.dumps({'refusal': 'Traceback:\\nValueError: no such operator'}), flush=True)", None),
        ("raise ValueError('no such operator')", "ValueError: no such operator"),
        ("sys.exit('[rank0]: ValueError: no such operator')", "ValueError: no such operator"),
        ("os._exit(3)", "exit code 3"),
        ("time.sleep(60)", "exit code -9"),
    ],
)
def test_a_cell_that_ends_its_process_is_refused_and_those_before_it_are_kept(
    monkeypatch: pytest.MonkeyPatch, second: str, refusal: str | None
) -> None:
    monkeypatch.setattr(of_clients, "_TIMEOUT", 3)
    script = (
        "import json, os, sys, time\nfor number, line in enumerate(sys.stdin):\n"
        f"    if number == 1:\n        {second}\n"
        "    else:\n        print(json.dumps({'values': [[json.loads(line)['a']]]}), flush=True)\n"
    )
    found = list(_replies([sys.executable, "-c", script], [{"a": 1}, {"a": 2}, {"a": 3}]))
    goes_on = [{"refusal": "ValueError: no such operator"}, {"values": [[3]]}]
    assert found == [{"values": [[1]]}, *(goes_on if refusal is None else [{"refusal": refusal}])]


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
    assert "- gguf, helium, gptj, opt, albert" in page
    both = [Cell("llama", "gguf", "llama_cpp", difference=3e-2, tokens=True), Cell("opt", "onnx", "optimum")]
    assert table(both).splitlines()[-1] == "| opt | not written | refused |"
    assert "- openvino (standard bundle), llama: `no operator MatMulNBits`" in page
    assert page.endswith("- optimum: optimum (2026-11-30)")
    assert "### Claims" not in page


def test_a_page_says_what_was_not_run_and_how_long_the_rest_took() -> None:
    whole = [
        Cell(family, form, name, difference=1e-7, packages="p", date="d", seconds=1.5)
        for name, client in clients().items()
        for family in FAMILIES
        for form in concerns(client, Artifacts(Path(), family))
    ]
    assert "### Not run" not in tables(whole)
    page = tables([cell for cell in whole if (cell.client, cell.family) != ("browser", "mpt")])
    assert "### Not run\n\n- browser (standard bundle), 1: mpt\n" in page
    browser = sum(cell.client == "browser" for cell in whole) - 1
    assert f"- browser: p (d); {1.5 * browser:,.0f} s for {browser} of {browser} cells" in page


def test_a_page_names_the_claims_that_do_not_hold_and_the_answers_that_nobody_claims() -> None:
    cells = [
        Cell("llama", "onnx_hub", "optimum", difference=2e-7, tokens=True, claimed=True),
        Cell("mistral", "onnx_hub", "optimum", refusal="Error: no", claimed=True),
        Cell("qwen3", "onnx_hub", "optimum", difference=0.6, tokens=False, claimed=True),
        Cell("gpt2", "onnx_hub", "optimum", difference=2e-7, tokens=True, claimed=False),
        Cell("opt", "onnx_hub", "optimum", refusal="Error: no", claimed=False),
    ]
    page = tables(cells)
    assert "name the client in 3 cells; it gives our answers in 1 of them" in page
    assert (
        "- named, and not so: optimum (onnx_hub), mistral\n- named, and not so: optimum (onnx_hub), qwen3"
        in page
    )
    assert page.count("- not named, and it gives our answers: optimum (onnx_hub), gpt2") == 1
