"""The terminal table: readable at 100 columns, and no doubtful number without its mark."""

import json
import re
from pathlib import Path

import pytest
from edgepress.benchmarks.page.compare import as_text, compare_runs, document, render
from edgepress.benchmarks.records import record
from edgepress.benchmarks.records.record import Measurement
from edgepress.cli.entry import run as cli
from edgepress.errors import UnknownName


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory, measured: list[Measurement]) -> Path:
    """A run file of the synthetic measurements."""
    path = tmp_path_factory.mktemp("runs") / "run.jsonl"
    for line in measured:
        record.append(path, line)
    return path


@pytest.mark.parametrize("width", [100, 80, 60])
def test_no_line_is_wider_than_the_terminal(run_file: Path, width: int) -> None:
    text = as_text(compare_runs([run_file]), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert ("not shown at this width" in text) == (width < 100)
    for scheme in ("W8A8 gptq", "W2A16-g64 gptq", "W8A8 rtn"):
        assert scheme in text


def test_rows_show_values_intervals_and_marks(run_file: Path) -> None:
    text = as_text(compare_runs([run_file]))
    assert re.search(r"W4A16-g64 gptq ◆ +83.1 +6.5 +30.74 +0.148 +78.9 +156 +822 +197", text)
    assert re.search(r"W2A16-g64 gptq +66.0 .*✗ 412 \[2\] +✗ 801 \[2\] +✗ 175 \[2\]", text)
    assert re.search(r"W3A16-g64 gptq +83.1 .*≈ 154 \[1\]", text)
    assert "[2] W2A16-g64 gptq (ONNX), latency and memory: invalid: impossible: 412 tok/s" in text
    assert "±0.010" in text
    assert "SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid" in text
    assert "2 threads, AMD EPYC 9R14" in text


def test_bytes_on_the_device_are_a_column_where_they_are_not_those_shipped(
    measured: list[Measurement], tmp_path: Path
) -> None:
    def text(name: str, factor: float) -> str:
        run = tmp_path / f"{name}.jsonl"
        for line in measured:
            metrics = dict(line.metrics)
            if (stored := metrics.get("device_bytes")) is not None and stored.value is not None:
                metrics["device_bytes"] = stored.model_copy(update={"value": factor * stored.value})
            record.append(run, line.model_copy(update={"metrics": metrics}))
        return as_text(compare_runs([run]), width=120)

    same, other = text("same", 1), text("other", 2)
    said = "on device: after the first run the same bytes as shipped"
    assert same.count(said) == 1 and "on device " not in same.replace(said, "")
    assert said not in other and re.search(r"W4A16-g64 gptq ◆ +83.1 +166 +6.5", other)
    assert re.search(r"W2A16-g64 gptq +66.0 +132 +8.2", other)  # no mark, though its speed is invalid
    assert "speed with: onnxruntime 1.32.0, edgepress operators (avx2)" in same


def test_an_invalid_number_is_never_best_nor_on_the_front(run_file: Path) -> None:
    rows = document(compare_runs([run_file]))["groups"][0]["rows"]
    two_bits = next(row for row in rows if row["scheme"] == "W2A16-g64 gptq")
    assert two_bits["pareto"] is False
    assert two_bits["validity"] == "invalid"
    assert two_bits["metrics"]["decode_tps"]["validity"] == "invalid"
    assert two_bits["metrics"]["kl"]["validity"] == "valid"
    from rich.console import Console

    console = Console(width=100, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(render(compare_runs([run_file])))
    assert "\x1b[9;31m412" in captured.get()  # struck, in red
    assert "\x1b[1;32m156" in captured.get()  # the best valid rate


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("quality", "fp32"),
        ("speed", "W4A16-g64 gptq"),
        ("memory", "W4A16-g64 gptq"),
        ("name", "W2A16-g64 gptq"),
        ("size", "fp32"),
    ],
)
def test_sorting_puts_the_best_valid_row_first(run_file: Path, order: str, first: str) -> None:
    group = compare_runs([run_file], sort=order)[0]
    assert group.rows[0].subject.scheme == first
    if order in ("speed", "memory"):
        assert {row.subject.scheme for row in group.rows[-2:]} == {"fp32", "W2A16-g64 gptq"}


def test_an_unknown_order_names_the_nearest(run_file: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'speed'"):
        compare_runs([run_file], sort="sped")


@pytest.mark.chain
def test_the_verbs_print_one_document(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["compare", str(run_file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [group["kind"] for group in found["groups"]] == ["decoder", "encoder"]
    assert len(found["groups"][0]["rows"]) == 8
    page = tmp_path / "report.html"
    assert cli(["report", str(run_file), "-o", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == page.stat().st_size
    assert cli(["report", str(run_file), "-o", str(page)]) == 0  # its own page is made anew
    page.write_text("a note")
    assert cli(["report", str(run_file), "-o", str(page)]) == 2
    assert cli(["compare", str(tmp_path / "none.jsonl")]) == 2
    assert cli(["compare", str(run_file), "-q"]) == 0
    assert "W4A16-g64 gptq" in capsys.readouterr().out
