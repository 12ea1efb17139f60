"""``profile --engine`` from the command line to the page, with a server that is honest, and with others."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edgepress
import pytest
from edgepress.benchmarks.records import record
from edgepress.cli.entry import run

from .test_server import all_ended, processes

pytestmark = pytest.mark.chain
SHORT = ["--engine", "vllm", "--prompt-tokens", "8", "--max-new-tokens", "4", "--quick"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, pico_llama: Path) -> Path:
    folder = tmp_path_factory.mktemp("served") / "w4"
    edgepress.compress_model(pico_llama, scheme="W4A16", output=folder)
    return folder


@pytest.fixture
def failed(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs ``profile --json`` and gives the error that it must end with."""

    def command(*words: object) -> dict[str, Any]:
        code = run(["profile", *map(str, words), "--json"])
        error: dict[str, Any] = json.loads(capsys.readouterr().out)["error"]
        assert code == error["exit_code"]
        return error

    return command


def test_each_number_at_once_is_a_line_of_the_page(
    fake_vllm: Callable[[str], Path],
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "of another server")
    numbers, runs = fake_vllm(""), tmp_path / "runs.jsonl"
    words = ["profile", str(checkpoint), *SHORT, "--concurrency", "1,3", "--threads", "1"]
    assert run([*words, "--record", str(runs), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["lines"]
    lines = record.read([runs])
    assert [line.model_dump(mode="json", by_alias=True) for line in lines] == shown
    assert [line.workload["concurrency"] for line in lines] == [1, 3]
    for line in lines:
        assert line.metrics["ttft_ms"].n >= 6 and line.metrics["output_tps"].value
        assert (line.runtime["version"], line.runtime["device"]) == ("0.32.0", "cpu")
        assert line.subject.scheme.startswith("W4A16") and line.protocol["requests"] >= 6
        assert str(checkpoint) not in json.dumps(line.runtime)
    assert all_ended(processes(numbers))
    page = tmp_path / "page.html"
    assert run(["report", str(runs), "-o", str(page)]) == 0
    assert "3 at once, through a server" in page.read_text(encoding="utf-8")


def test_the_terminal_has_a_row_for_each_number(
    fake_vllm: Callable[[str], Path], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_vllm("")
    assert (
        run(["profile", str(checkpoint), *SHORT, "--concurrency", "2", "--record", str(tmp_path / "r")]) == 0
    )
    shown = capsys.readouterr().out
    assert "first" in shown and "vllm 0.32.0" in shown and "2 at once: " in shown


def test_a_dry_run_shows_the_server_and_starts_none(
    fake_vllm: Callable[[str], Path], checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers = fake_vllm("")
    assert run(["profile", str(checkpoint), *SHORT, "--dry-run"]) == 0
    captured = capfd.readouterr()
    assert "Plan of profile with vLLM" in captured.out and "--max-num-seqs 32" in captured.out + captured.err
    assert not numbers.exists()


@pytest.mark.parametrize(
    ("mode", "code", "said"),
    [
        ("endless", "E-ENGINE", "does not end"),
        ("huge", "E-ENGINE", "a line of more than"),
        ("no json", "E-ENGINE", "another form"),
        ("short", "E-ENGINE", "tokens where 4"),
        ("rejects", "E-ENGINE", "status 400"),
        ("exits", "E-ENGINE", "exit code 3"),
        ("refuses", "E-CHECKPOINT", "compatible scheme"),
    ],
)
def test_a_server_that_is_not_as_it_should_be_is_typed(
    fake_vllm: Callable[[str], Path],
    checkpoint: Path,
    tmp_path: Path,
    failed: Callable[..., dict[str, Any]],
    mode: str,
    code: str,
    said: str,
) -> None:
    numbers, runs = fake_vllm(mode), tmp_path / "runs.jsonl"
    error = failed(checkpoint, *SHORT, "--concurrency", "2", "--record", runs)
    assert error["code"] == code and said in f"{error['what']} {error['why']}"
    assert all_ended(processes(numbers)) and not runs.exists()


def test_what_cannot_be_served_is_refused_before_a_server_starts(
    fake_vllm: Callable[[str], Path],
    checkpoint: Path,
    pico_bert: Path,
    failed: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    numbers = fake_vllm("")
    assert failed(pico_bert, *SHORT)["why"] == "it is no decoder"
    assert "do not fit" in failed(checkpoint, *SHORT, "--max-new-tokens", "100000")["what"]
    assert "must be 1 to" in failed(checkpoint, *SHORT, "--concurrency", "0")["what"]
    assert failed(checkpoint, *SHORT, "--concurrency", "a")["code"] == "E-USAGE"
    assert failed(checkpoint, *SHORT, "--per-op")["code"] == "E-USAGE"
    assert failed(checkpoint, "--concurrency", "2")["code"] == "E-USAGE"
    assert failed(checkpoint, "--engine", "vlm")["code"] == "E-UNKNOWN"
    assert failed(tmp_path / "none", *SHORT)["exit_code"] == 2
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    assert "is a bundle" in failed(tmp_path, *SHORT)["what"]
    assert not numbers.exists()


# A shell's background job ignores SIGINT, and so would its children.
AS_IN_A_TERMINAL = """
import signal
from edgepress.cli.entry import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def test_ctrl_c_ends_the_server(fake_vllm: Callable[[str], Path], checkpoint: Path, tmp_path: Path) -> None:
    numbers = fake_vllm("")
    words = [str(checkpoint), *SHORT, "--blocks", "10000", "--record", str(tmp_path / "runs.jsonl")]
    with subprocess.Popen([sys.executable, "-c", AS_IN_A_TERMINAL, "profile", *words]) as measuring:
        found = processes(numbers)
        os.kill(measuring.pid, signal.SIGINT)
        assert measuring.wait(60) == 130
    assert all_ended(found)
