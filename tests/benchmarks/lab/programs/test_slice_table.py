"""The page of slices: the worst group of each slice and of all, versions side by side."""

from pathlib import Path
from typing import Any

from edgepress.benchmarks.lab.programs.slice_table import write_page


def group(name: str, harm: float, alarm: bool = False, **more: float) -> dict[str, Any]:
    return {"group": name, "items": 10, "harm": harm, "others": 0.1, "alarm": alarm, **more}


def line(korean: float, alarm: bool) -> dict[str, Any]:
    texts = [
        group("English", 0.1, kl_per_token=0.4),
        group("French", 0.1, kl_per_token=0.4),
        group("Korean", korean, alarm, kl_per_token=0.2),
    ]
    slices = [
        {"name": "languages", "title": "language", "unit": "nats/byte", "items": 30, "groups": texts},
        {
            "name": "syntax",
            "title": "phenomenon",
            "unit": "changed",
            "items": 20,
            "groups": [group("island", 0.1), group("article", 0.3)],
        },
        {"name": "tasks", "title": "group", "why": "no row of the text has a group"},
    ]
    worst = {"group": "Korean", "slice": "languages"} if alarm else None
    return {
        "kl": 0.17,
        "flips": 0.2,
        "tests": 5,
        "cpu_seconds": 1.0,
        "slices": slices,
        "worst": worst,
    }


def test_versions_stand_side_by_side(tmp_path: Path) -> None:
    page = tmp_path / "slices.md"
    write_page(page, "Pico", "a command", {"8 bits": line(0.05, False), "4 bits": line(0.3, True)})
    rows = {
        (section.partition("\n")[0], cells[0]): cells[1:]
        for section in page.read_text().split("\n## ")[1:]
        for row in section.splitlines()
        if row.startswith("|") and (cells := [cell.strip() for cell in row.split("|")[1:-1]])
    }
    worst, languages = "Pico: the worst of each slice", "Pico: language"
    assert rows[worst, "named as harmed most"] == ["none beyond chance", "Korean (languages)"]
    assert rows[worst, "choices that changed, of 20"] == ["20.0%", "20.0%"]
    assert rows[worst, "phenomenon: answers that changed"] == ["article: 30.0%, 3.0 ×"] * 2
    assert rows[languages, "Korean"] == ["0.05", "0.3 *"]
    assert rows[languages, "mean of other scripts: KL, nats a token"] == ["0.2", "0.2"]
    assert not any(section == "Pico: group" for section, _ in rows)
