"""Several places at once: what one gives is recorded whatever becomes of the others."""

import threading
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.records import record
from edgepress.benchmarks.records.record import Measurement
from edgepress.benchmarks.speed import side_by_side
from edgepress.benchmarks.speed.elsewhere import Request, import_lines
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.benchmarks.speed.side_by_side import SideBySide
from edgepress.devices.own_devices import OwnDevice
from edgepress.devices.probe import probe
from edgepress.devices.state import read_state
from edgepress.devices.transports.answers import DeviceError, Facts
from edgepress.errors import InputError, RefusedByPolicy
from edgepress.terminal.progress import Silent

from ...devices.transports.test_answers import FACTS
from ..conftest import latency, metric, subject

REQUEST = Request((Path("bundle"),), Protocol())


def device(name: str) -> OwnDevice:
    return OwnDevice(name=name, ssh=name, facts=Facts.model_validate(FACTS))


def line(**changes: Any) -> Measurement:
    state = read_state().model_dump(mode="json")
    fields = {"device": probe().model_dump(mode="json"), "state": {"before": state, "after": state}}
    made = subject("W4A16-g64 gptq", 83.1)
    return latency(made, None, {"decode_tps": metric(141, 2)}, **{**fields, **changes})


def test_they_run_at_once_and_one_that_fails_stops_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2, timeout=60)

    def profile_on(place: OwnDevice, request: Request, progress: Any) -> list[Measurement]:
        together.wait()
        if place.name == "gone":
            raise DeviceError("the link to gone was lost", why="it rained")
        return [line()]

    monkeypatch.setattr(side_by_side, "profile_on", profile_on)
    found = SideBySide(REQUEST, tmp_path / "run.jsonl", Silent())
    found.run([device("pi"), device("gone")])
    assert set(found.lines) == {"pi"} and len(record.read([tmp_path / "run.jsonl"])) == 1
    failure = found.failure()
    assert isinstance(failure, DeviceError) and failure.why == "it rained"
    found.errors["other"] = InputError("it is another")
    assert found.failure() is failure and failure.why.endswith("other: it is another")


def test_lines_stand_in_the_order_of_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def profile_on(place: OwnDevice, request: Request, progress: Any) -> list[Measurement]:
        if place.name == "slow":
            assert ended.wait(60)
        else:
            ended.set()
        return [line()]

    monkeypatch.setattr(side_by_side, "profile_on", profile_on)
    found = SideBySide(REQUEST, tmp_path / "run.jsonl", Silent())
    found.run([device("slow"), device("pi")])
    assert list(found.lines) == ["slow", "pi"]


def test_the_only_place_raises_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def profile_on(*_: Any) -> list[Measurement]:
        raise DeviceError("it is gone")

    monkeypatch.setattr(side_by_side, "profile_on", profile_on)
    found = SideBySide(REQUEST, tmp_path / "run.jsonl", Silent())
    with pytest.raises(DeviceError, match="it is gone"):
        found.run([device("pi")])
    assert found.failure() is None and not (tmp_path / "run.jsonl").exists()


def test_a_foreign_file_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no run file"):
        SideBySide(REQUEST, tmp_path / "notes.txt", Silent()).run([None])


def test_lines_from_elsewhere_are_added_once(tmp_path: Path) -> None:
    carried, run = tmp_path / "record.jsonl", tmp_path / "run.jsonl"
    first, second = line(), line()
    record.append(carried, first)
    assert [one.id for one in import_lines(carried, run)[0]] == [first.id]
    record.append(carried, second)
    assert [one.id for one in import_lines(carried, run)[0]] == [second.id]
    with pytest.raises(InputError, match="there is no file"):
        import_lines(tmp_path / "none.jsonl", run)
    named, _ = import_lines(carried, tmp_path / "named.jsonl", "attic")
    assert {one.device["name"] for one in named} == {"attic"}
    assert [one.id for one in record.read([run])] == [first.id, second.id]


@pytest.mark.parametrize("changes", [{"device": {"cpu": "x"}}, {"state": {}}, {"state": {"before": 1}}])
def test_a_line_of_no_machine_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    record.append(tmp_path / "record.jsonl", line(**changes))
    with pytest.raises(RefusedByPolicy, match=r"record\.jsonl"):
        import_lines(tmp_path / "record.jsonl", tmp_path / "run.jsonl")
    assert not (tmp_path / "run.jsonl").exists()
