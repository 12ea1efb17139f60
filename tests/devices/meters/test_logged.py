"""The log of a meter: joules from its lines, while it grows; another file is a reason, not a number."""

import time
from pathlib import Path

import pytest
from edgepress.devices.energy import Meter, MeterLost, NoMeter
from edgepress.devices.meters import logged


def write(path: Path, lines: list[tuple[float, object]], header: str = "seconds,watts") -> None:
    path.write_text("\n".join([header, *(f"{at!r},{watts}" for at, watts in lines)]) + "\n", encoding="utf-8")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten watts, a line every tenth of a second until now."""
    path, now = tmp_path / "meter.csv", time.time()
    write(path, [(now - 1 + 0.1 * step, 10.0) for step in range(11)])
    monkeypatch.setenv(logged.VARIABLE, str(path))
    return path


def test_joules_are_the_area_under_the_lines(log: Path) -> None:
    meter = logged.find()
    assert isinstance(meter, Meter) and meter.method == "logged_csv"
    assert meter.update_s == pytest.approx(0.1, rel=1e-3)
    before = meter.read()
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"{time.time() + 1!r},30.0\n{time.time() + 2!r},30.0\n1795")  # half a line is not read
    passed = meter.between(before, meter.read())
    assert passed.joules == pytest.approx(20 + 30, rel=0.1)


def test_a_log_that_no_longer_grows_is_not_believed(log: Path) -> None:
    then = time.time() - 3600
    write(log, [(then + step, 10.0) for step in range(20)])
    found = logged.find()
    assert isinstance(found, NoMeter) and "does not grow" in found.reason and found.fix


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seconds,watts\n1,2\n",
        "time,power\n1,2\n2,2\n3,2\n",
        "seconds,watts\n3,1\n2,1\n1,1\n",
        "seconds,watts\n1,nan\n2,1\n3,1\n",
        "seconds,watts\n1,-5\n2,1\n3,1\n",
        "seconds,watts\n1,x\n2,1\n3,1\n",
    ],
)
def test_another_file_is_a_reason(log: Path, text: str) -> None:
    log.write_text(text)
    found = logged.find()
    assert isinstance(found, NoMeter) and logged.VARIABLE in found.reason and "columns" in found.fix


def test_without_the_variable_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(logged.VARIABLE, raising=False)
    assert logged.find() is None


def test_a_log_that_is_deleted_meanwhile_is_lost(log: Path) -> None:
    meter = logged.find()
    assert isinstance(meter, Meter)
    log.unlink()
    with pytest.raises(MeterLost):
        meter.read()
