"""Tables that others send: each file of the repository holds, and measured figures replace claimed ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.devices.kernel_table.submission import (
    FOLDER,
    SCHEMA,
    Submission,
    measured,
    read_submission,
    submissions,
)
from edgepress.devices.target import target, target_names
from edgepress.errors import InputError

from .tables import FAR, small_table


def sent(folder: Path, name: str = "board.json", **changes: Any) -> Path:
    """A submission as a file."""
    table = small_table().model_dump(by_alias=True, mode="json")
    fields = {"schema": "edgepress.submission/1", "target": "raspberry-pi-5", "machine": "A board, 8 GB"}
    path = folder / name
    path.write_text(json.dumps({**fields, "sender": "someone", "table": table, **changes}))
    return path


def test_every_submission_of_the_repository_holds() -> None:
    files = [path for path in FOLDER.glob("*.json") if path.name != SCHEMA]
    assert all(read_submission(path).target in target_names() for path in files)


def test_the_schema_beside_them_is_the_one_that_they_are_read_with() -> None:
    kept, now = json.loads((FOLDER / SCHEMA).read_text()), Submission.model_json_schema(by_alias=True)
    assert kept["properties"].keys() == now["properties"].keys() and kept["required"] == now["required"]
    for name, part in now["$defs"].items():
        assert kept["$defs"][name]["properties"].keys() == part["properties"].keys(), name


def test_what_was_measured_replaces_what_is_claimed_and_says_so(tmp_path: Path) -> None:
    sent(tmp_path)
    claimed = target("raspberry-pi-5")
    found = measured(claimed, tmp_path)
    assert found.bandwidth.value == FAR / 1e9 * 2  # with two threads
    assert f"in place of {claimed.bandwidth.value:g} GB/s" in found.bandwidth.note
    assert "someone" in found.bandwidth.note
    assert found.bandwidth.source == "measured: submissions/board.json"
    assert found.power == claimed.power
    assert measured(target("macbook-m4"), tmp_path) == target("macbook-m4")


def test_the_newest_of_several_is_first(tmp_path: Path) -> None:
    later = small_table(created_utc="2027-01-01T00:00:00+00:00").model_dump(by_alias=True, mode="json")
    sent(tmp_path)
    sent(tmp_path, "a.json", table=later)
    assert list(submissions("raspberry-pi-5", tmp_path)) == ["a.json", "board.json"]
    assert submissions("macbook-m4", tmp_path) == {}


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("sender"),
        lambda data: data.update(sender="\u202e"),
        lambda data: data.update(run="rm"),
        lambda data: data.update(schema="edgepress.submission/2"),
        lambda data: data["table"].update(complete=False),
        lambda data: data["table"].update(took=-1.0),
    ],
)
def test_another_file_is_refused_by_its_name(tmp_path: Path, change: Change) -> None:
    path = sent(tmp_path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"board\.json is no submission"):
        read_submission(path)
