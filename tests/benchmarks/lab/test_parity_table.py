"""The table of proofs: a column for every part that holds numbers, a dash where a bundle lacks it."""

from __future__ import annotations

import json
from pathlib import Path

from edgepress.benchmarks.lab.programs.parity_table import write_parity


def bundle(path: Path, parity: dict[str, object]) -> Path:
    path.mkdir()
    (path / "manifest.json").write_text(json.dumps({"parity": parity}))
    return path


def test_columns_are_the_parts_with_numbers(tmp_path: Path) -> None:
    plain = bundle(tmp_path / "plain", {"float": {"max_abs_difference": 1e-5}, "text": {"source": "x"}})
    coded = bundle(
        tmp_path / "coded", {"codes": {"bound": 3}, "float": {"bound": 1, "cases": 2}, "passed": 1}
    )
    write_parity(tmp_path / "table.md", "m", {"plain": plain, "coded": coded}, "made by this")
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[2] == "| scheme | codes | float |"
    assert lines[4:6] == [
        "| plain | – | max_abs_difference 1e-05 |",
        "| coded | bound 3 | bound 1, cases 2 |",
    ]
    assert "- Command: `made by this`" in lines
