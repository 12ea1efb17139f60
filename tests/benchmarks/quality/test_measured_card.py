"""The card that names who loses more, beside the run file; the directory's own stays as it was written."""

from pathlib import Path

import pytest
from edgepress.benchmarks.quality.measured_card import HEADING, with_slices
from edgepress.benchmarks.quality.subgroups.slice_table import shown_p
from edgepress.benchmarks.records.record import Measurement
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.runtime.bundle.verification import verify_directory

CARD = """---
tags:
- edgepress
---

# a

## Known losses

some

## Licences

- of the base model: MIT
"""


def group(name: str, harm: float, alarm: bool) -> dict[str, object]:
    given = {"group": name, "harm": harm, "alarm": alarm, "others": 0.5, "items": 20, "times": harm / 0.5}
    return {**given, "ci95": [harm / 2, 2 * harm], "p": 0.001 if alarm else 0.4, "smallest_seen": 0.9}


def line(harm: float) -> Measurement:
    languages = [group("Greek", 0.4, False), group("Korean | [x](http://y)", harm, True)]
    worst = {"slice": "languages", **languages[1]}
    measured = {
        "name": "languages",
        "title": "language",
        "unit": "nats/byte",
        "items": 40,
        "groups": languages,
    }
    left = {"name": "tasks", "title": "group", "why": "no row of the text has a group"}
    report = {"slices": [measured, left], "tests": 2, "worst": worst}
    subject = {"name": "a", "kind": "decoder", "scheme": "W3A16", "runtime": "torch"}
    return Measurement.model_construct(subject=subject, baseline=None, compare={"slices": report})


def test_the_worst_group_and_that_of_each_slice_stand_in_the_card() -> None:
    text = with_slices(CARD, line(1.5))
    front, _, section = text.partition(HEADING)
    assert front == CARD.partition("## Licences")[0]
    assert "1.5 KL, nats a byte, the others 0.5" in section
    assert "| 0.75 to 3 | 0.5 | 20 | yes (p 0.001) | 0.9 |" in section
    assert "Not measured: tasks (no row of the text has a group)." in section
    assert section.endswith("## Licences\n\n- of the base model: MIT\n")
    assert "| `Korean \\x7c [x](http://y)` |" in section  # never a link or a cell


def test_a_probability_that_underflows_is_not_nothing() -> None:
    assert shown_p(0.0) == "< 0.0001" and shown_p(0.0123) == "0.012"


def test_a_later_measurement_takes_the_place_of_the_section() -> None:
    once = with_slices(CARD, line(2.5))
    assert with_slices(with_slices(CARD, line(1.5)), line(2.5)) == once
    assert once.count(HEADING) == 1
    alone = with_slices("# a\n", line(1.5))
    assert with_slices(alone, line(1.5)) == alone and alone.startswith("# a\n\n## Who loses more\n")


@pytest.mark.chain
def test_validate_writes_it_beside_the_run_file(
    pico_llama: Path, tmp_path: Path, pico_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = compress_model(str(pico_llama), output=tmp_path / "w4", scheme="W4A16")
    before = (checkpoint / "README.md").read_bytes()
    record = tmp_path / "runs" / "w4.jsonl"
    words = ["validate", str(checkpoint), "--against", str(pico_llama), "--text", str(pico_text)]
    words += ["--slices", "positions,rare-words", "--windows", "4", "--length", "32", "--record", str(record)]
    assert run(words) == 0
    card = record.with_suffix(".README.md")
    said = card.read_text(encoding="utf-8")
    assert str(card) in capsys.readouterr().err.replace("\n", "")
    assert said.startswith("---\n") and HEADING in said and "| positions: KL, nats a token |" in said
    assert (checkpoint / "README.md").read_bytes() == before and not verify_directory(checkpoint).problems

    card.write_text("my own notes")
    assert run([*words, "-q"]) == 2 and card.read_text() == "my own notes"
    assert "no card of a measurement" in capsys.readouterr().err
