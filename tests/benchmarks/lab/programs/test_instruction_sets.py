"""Sets of instructions are compared by their own rounds."""

from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs import instruction_sets as compared


def test_the_ratio_is_of_pairs() -> None:
    rounds = [{"amx": {"16": [1.0 * slow, 0.0]}, "plain": {"16": [2.0 * slow, 0.0]}} for slow in (1, 3, 2)]
    cells = compared.row("16", ("plain", "amx"), rounds)
    assert cells == ["16", "4", "8", "2.00 [2.00, 2.00]"]


def test_other_logits_end_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answer(bundle: Path, name: str, threads: int) -> dict[str, list[float]]:
        return {str(length): [1.0, float(name == "amx")] for length in compared.PROMPTS}

    monkeypatch.setattr(compared, "in_process", answer)
    monkeypatch.setattr("sys.argv", ["instruction_sets", str(tmp_path), "plain", "amx"])
    with pytest.raises(SystemExit, match="other logits after 16 tokens"):
        compared.main()
