"""Kernel tables as files: the same bytes for one table, and a stranger's file is refused with its field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.cli.entry import run
from edgepress.devices.kernel_table.table import (
    KernelTable,
    keep_table,
    machines,
    newest_table,
    read_table,
    write_table,
)
from edgepress.errors import InputError

from .tables import small_table


def test_what_is_written_is_read(tmp_path: Path) -> None:
    table = small_table()
    for name in ("one.json", "two.json"):
        write_table(tmp_path / "tables" / name, table)
    first, second = ((tmp_path / "tables" / name).read_bytes() for name in ("one.json", "two.json"))
    assert first == second and read_table(tmp_path / "tables" / "one.json") == table


def test_another_machines_table_is_kept_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert newest_table("pi") is None
    keep_table("pi", small_table(created_utc="2026-01-01T00:00:00+00:00"))
    later = small_table(created_utc="2026-01-02T00:00:00+00:00", runtime="9.9")
    keep_table("pi", later)
    found = newest_table("pi")
    assert found is not None and (found.machine, found.key.runtime) == ("pi", "9.9")


def test_a_carried_table_is_imported_under_a_name_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "kernels.json"
    write_table(file, small_table())
    assert run(["devices", "import", str(file)]) == 2
    for name in ("h100-sxm", "here", "../x", "A"):
        assert run(["devices", "import", str(file), "--name", name]) == 2
    assert machines() == []
    assert run(["devices", "import", str(file), "--name", "board"]) == 0
    assert machines() == ["board"] and "--on board" in capsys.readouterr().out
    file.write_text("{}")
    assert run(["devices", "import", str(file), "--name", "board"]) == 2
    for name in ("..", "", ".", "board/..", "../config"):
        assert run(["devices", "remove", name]) == 2
    assert machines() == ["board"]
    assert run(["devices", "remove", "board"]) == 0 and machines() == []


Change = Callable[[dict[str, Any]], object]


def of_one_size(family: dict[str, Any]) -> dict[str, Any]:
    return {name: value[:1] if isinstance(value, list) else value for name, value in family.items()}


HOSTILE: dict[str, Change] = {
    "another schema": lambda table: table.update(schema="edgepress.kernel-table/9"),
    "a field more": lambda table: table.update(run="rm"),
    "no key": lambda table: table.pop("key"),
    "a time of nothing": lambda table: table["families"][0]["seconds"].__setitem__(0, 0),
    "a time below zero": lambda table: table["families"][0]["seconds"].__setitem__(0, -1.0),
    "an endless time": lambda table: table["families"][0]["seconds"].__setitem__(0, float("inf")),
    "a time that is no number": lambda table: table["families"][0]["seconds"].__setitem__(0, float("nan")),
    "a time in words": lambda table: table["families"][0]["seconds"].__setitem__(0, "1"),
    "fewer times than sizes": lambda table: table["families"][0]["seconds"].pop(),
    "a size of nothing": lambda table: table["families"][0]["sizes"][0].__setitem__(0, 0),
    "a size along no axis": lambda table: table["families"][0]["sizes"][0].append(1),
    "a size twice": lambda table: table["families"][0]["sizes"].__setitem__(
        1, table["families"][0]["sizes"][0]
    ),
    "an unknown kind": lambda table: table["families"][0].update(kind="magic"),
    "an escape": lambda table: table["key"].update(processor="\x1b[2J"),
    "no threads": lambda table: table["fixed"][0].update(threads=0),
    "too many families": lambda table: table.update(families=[of_one_size(table["families"][0])] * 4001),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_table_is_refused(name: str, tmp_path: Path) -> None:
    table = small_table().model_dump(by_alias=True, mode="json")
    HOSTILE[name](table)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table))
    with pytest.raises(InputError, match=r"table\.json") as caught:
        read_table(path)
    assert "measure again" in caught.value.fix or "larger" in caught.value.what


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"table"', "[" * 100_000])
def test_what_is_no_table_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"table\.json"):
        read_table(path)


def test_a_grid_with_a_hole_is_not_whole() -> None:
    family = small_table().families[0]
    assert family.whole
    lists = {
        name: getattr(family, name)[:-1] for name in ("sizes", "read", "moved", "work", "seconds", "least")
    }
    assert not family.model_copy(update=lists).whole
    assert KernelTable.model_validate(small_table().model_dump(by_alias=True)) == small_table()
