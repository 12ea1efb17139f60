"""What `edgepress compress` says at the end about each step."""

from pathlib import Path
from typing import Any

import pytest
from edgepress.cli.entry import run
from edgepress.cli.verbs.compress import step_summary

pytestmark = pytest.mark.chain


def test_each_step_says_what_it_measured_and_nothing_else(
    pico_llama: Path, pico_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "passes:\n  - {pass: rotate}\n  - {pass: gptq, scheme: W3A16-g32}\n"
        "  - {pass: tune, precision: float32, batch_tokens: 64, piece_tokens: 64}\n"
    )
    text = ["--calibration", str(pico_text), "--samples", "16", "--length", "32"]
    assert run(["compress", str(pico_llama), "-r", str(recipe), *text, "-o", str(tmp_path / "out")]) == 0
    lines = {}
    for line in capsys.readouterr().out.splitlines():
        name, _, told = line.strip().partition(": ")
        lines[name] = told
    assert lines["rotate"].startswith("21 ok; KL to the original")  # it rounds nothing: no error
    assert "worst relative error 0." in lines["gptq"] and "KL to the original" in lines["gptq"]
    assert lines["tune"].startswith("KL to the original") and " tokens" in lines["tune"]
    assert lines["next"] == f"edgepress export {tmp_path / 'out'} -o BUNDLE" and "runs on" not in lines


def test_a_text_that_nothing_reads_is_said(
    pico_llama: Path, pico_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["compress", str(pico_llama), "--text", str(pico_text), "--dry-run"]
    for recipe, said in (("w8a8", True), ("w8a8-calibrated", False)):
        assert run([*given, "-r", recipe, "--samples", "4", "--length", "32"]) == 0
        shown = " ".join(capsys.readouterr().err.split())
        assert (f"{recipe} calibrates nothing: {pico_text} is not read" in shown) is said


def test_a_pass_that_learned_tells_its_own_measure_and_what_did_not_go_well() -> None:
    step: dict[str, Any] = {"statuses": {}, "worst_error": 0.0}
    step["damage"] = None
    step["details"] = {
        "measure": "sequence",
        "held_out": [[0, 0.0099], [2, 0.00129]],
        "kept": 2,
        "retreats": 0,
    }
    assert step_summary(step) == "held-out sequence 0.0099, now 0.00129"
    step["details"] |= {"kept": 0, "retreats": 3}
    assert "kept as it was" in step_summary(step) and "rolled back 3 ×" in step_summary(step)
