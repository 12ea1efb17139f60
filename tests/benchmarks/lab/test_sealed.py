"""The sealed text: made from a file whose hash is committed, measured on, and never learned from."""

from pathlib import Path

import pytest
from edgepress.benchmarks.lab import sealed
from edgepress.benchmarks.lab.study.schema import CalibrationText
from edgepress.benchmarks.lab.study.sources import Sources
from edgepress.errors import InputError


def test_it_is_made_from_its_source_and_from_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sealed.main([str(tmp_path / "s.txt")]) == 0
    items = (tmp_path / "s.txt").read_text(encoding="utf-8").rstrip("\n").split("\n\n")
    assert items == sealed.documents() and len(set(items)) == len(items) == 293
    changed = tmp_path / "changed.cor"
    changed.write_text("\n".join([*items[1:], items[0]]), encoding="utf-8")
    with pytest.raises(InputError, match="not the sealed text"):
        sealed.documents(changed)
    assert sealed.main([]) == 2


def test_a_study_measures_on_it_and_does_not_calibrate_with_it(tmp_path: Path) -> None:
    sources = Sources(tmp_path)
    assert Path(sources.text("sealed")).read_text(encoding="utf-8").startswith("Hundreds of people")
    for text in ("sealed", ["wikipedia", "sealed"]):
        with pytest.raises(InputError, match="calibrates with the sealed text"):
            sources.calibrated(CalibrationText(text=text))
    assert sealed.told(["wikipedia", "sealed", "wikipedia"]) == (
        "Measured on development text (wikipedia) and on sealed text, which nothing was chosen by."
    )
