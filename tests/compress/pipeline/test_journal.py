"""The journal of a sweep: what it says is either whole and of this work, or not believed."""

import random
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.pipeline.journal import Journal, read_sealed, write_sealed
from edgepress.files.storage import write_json

UNITS = 3


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path, "key")
    made.claim()
    for number in range(UNITS):
        part, activations = tmp_path / f"part-{number}", tmp_path / f"activations-{number}"
        for file in (part, activations):
            file.write_bytes(bytes(range(100)))
        made.add(
            {
                "part": made.hashes([part]),
                "activations": made.hashes([activations]),
                "statuses": [{"name": "a", "error": 0.1}],
                "schemes": {"a": "W4A16"},
            }
        )
    return made


def kept(journal: Journal) -> int:
    return Journal.open(journal.directory, "key").resume()


def test_whole_units_are_kept(journal: Journal) -> None:
    assert kept(journal) == UNITS
    again = Journal.open(journal.directory, "key")
    assert again.units == journal.units and not again.belongs_to_other()


def test_not_a_bit_of_it_may_change(journal: Journal) -> None:
    """200 single bits, and 50 lengths: another text of the same values is the only thing that is believed."""
    whole, generator = journal.path.read_bytes(), random.Random(0)
    for _ in range(200):
        changed = bytearray(whole)
        changed[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        journal.path.write_bytes(changed)
        again = Journal.open(journal.directory, "key")
        assert again.units in ([], journal.units) and again.belongs_to_other() == (not again.units)
    for length in range(0, len(whole) - 2, len(whole) // 50):
        journal.path.write_bytes(whole[:length])
        assert kept(journal) == 0 and Journal.open(journal.directory, "key").belongs_to_other()


@pytest.mark.parametrize("kind", ["part", "activations"])
@pytest.mark.parametrize("damage", ["flipped", "longer", "shorter", "missing"])
def test_not_a_bit_of_what_units_left_may_change(journal: Journal, kind: str, damage: str) -> None:
    file = journal.directory / f"{kind}-{UNITS - 1}"
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    changed = {"flipped": bytes(data), "longer": bytes(data) + b"x", "shorter": bytes(data[:-1])}
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(changed[damage])
    assert kept(journal) == 0


def test_old_activations_are_not_needed(journal: Journal) -> None:
    (journal.directory / "activations-0").unlink()
    assert kept(journal) == UNITS


def test_other_work_keeps_nothing(journal: Journal) -> None:
    other = Journal.open(journal.directory, "another key")
    assert other.resume() == 0 and other.belongs_to_other()


def test_nothing_yet_is_nobody_s(tmp_path: Path) -> None:
    assert not Journal(tmp_path, "key").belongs_to_other()


@pytest.mark.parametrize("content", [[], None, 1, {}, {"sha256": None}, {"key": "key", "units": [{}]}])
def test_a_journal_of_another_form_is_not_believed(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "journal.json", content)
    assert Journal.open(tmp_path, "key").units == [] and Journal(tmp_path, "key").belongs_to_other()


def test_sealed_values_come_back_as_json_has_them(tmp_path: Path) -> None:
    write_sealed(tmp_path / "file", {"by": {10: 0.1, 9: (1, None)}, "text": "é"})
    assert read_sealed(tmp_path / "file") == {"by": {"10": 0.1, "9": [1, None]}, "text": "é"}
    assert read_sealed(tmp_path / "nothing") is None
