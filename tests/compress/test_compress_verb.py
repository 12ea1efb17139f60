"""What `edgepress compress` says at the end about each step."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgepress.cli import run


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
    assert lines["rotate"].endswith(" ok")  # it rounds nothing: no error, and nothing measured after it
    assert "worst relative error 0." in lines["gptq"] and "KL to the original" in lines["gptq"]
    assert lines["tune"].startswith("KL to the original") and " tokens" in lines["tune"]
