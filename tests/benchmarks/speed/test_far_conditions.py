"""What a device's line says of the device's own conditions, and that a slow link is none of them."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from edgepress.benchmarks.speed.elsewhere import profile_on
from edgepress.devices.transports.sending import prepare
from edgepress.devices.transports.ssh import Link
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.terminal.progress import Silent

from ...loopback import Loopback
from .test_elsewhere import PI, Seen, asked, bundle, machine

pytestmark = pytest.mark.chain
__all__ = ["bundle", "machine"]

# Read by every Python there that has the packages, before anything else.
BATTERY = """
from pathlib import Path
from types import SimpleNamespace
import psutil
plug = Path.home() / "unplugged"
psutil.sensors_battery = lambda: SimpleNamespace(percent=41.0, power_plugged=not plug.exists())
"""


@pytest.fixture(scope="module")
def with_battery(machine: Loopback, bundle: Path) -> Path:
    """The device gets a battery; it runs on it as long as this file is there."""
    with Link(PI.name, PI.ssh) as link:
        prepare(link, [Bundle.open(bundle)], Silent(), "cpu")
    (package,) = (machine.home / "cache/device").rglob("psutil/__init__.py")
    (package.parents[1] / "sitecustomize.py").write_text(BATTERY, encoding="utf-8")
    return machine.home / "unplugged"


@pytest.fixture
def battery(with_battery: Path) -> Iterator[Path]:
    """Plugged in again after each test."""
    yield with_battery
    with_battery.unlink(missing_ok=True)


@pytest.mark.slow
def test_a_device_on_battery_says_so(machine: Loopback, bundle: Path, battery: Path) -> None:
    battery.touch()
    (line,) = profile_on(PI, asked(bundle), Seen())
    assert line.validity.status == "suspect"
    assert any("it runs on battery" in reason for reason in line.validity.reasons)
    assert (line.state["before"]["ac"], line.state["before"]["battery_percent"]) == (False, 41.0)


def test_a_supply_that_changes_while_it_measures(machine: Loopback, bundle: Path, battery: Path) -> None:
    (line,) = profile_on(PI, asked(bundle), Seen("measuring", 1, battery.touch))
    assert any("between mains and battery" in reason for reason in line.validity.reasons)


# 40 kB a second each way, while the file is there.
SLOW = """
import socket, sys, threading, time
from pathlib import Path
far, slow = socket.create_connection(("127.0.0.1", int(sys.argv[1]))), Path(sys.argv[2])
def carried(data, send):
    for start in range(0, len(data), 4000):
        send(data[start : start + 4000])
        time.sleep(0.1 if slow.exists() else 0)
def said(data):
    sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
def down():
    while data := far.recv(65536):
        carried(data, said)
threading.Thread(target=down, daemon=True).start()
while data := sys.stdin.buffer.read1(65536):
    carried(data, far.sendall)
"""


@contextmanager
def slow_link(machine: Loopback, folder: Path) -> Iterator[Path]:
    """The way to the device is slow as long as the file is there."""
    script, flag = folder / "slow.py", folder / "slow"
    config = Path(os.environ["PATH"].split(os.pathsep)[0]) / "config"
    before = config.read_text(encoding="utf-8")
    script.write_text(SLOW, encoding="utf-8")
    command = f"  ProxyCommand {sys.executable} {script} {machine.port} {flag}\n"
    config.write_text(before + command, encoding="utf-8")
    yield flag
    config.write_text(before, encoding="utf-8")


@pytest.mark.slow
def test_a_link_that_is_slow_while_it_measures(machine: Loopback, bundle: Path, tmp_path: Path) -> None:
    """What is measured there comes whole, and says nothing of the link."""
    with slow_link(machine, tmp_path) as flag:
        began: list[float] = []

        def slow() -> None:
            flag.touch()
            began.append(time.monotonic())

        (line,) = profile_on(PI, asked(bundle), Seen("measuring", 1, slow))
    assert time.monotonic() - began[0] > 0.5, "it was slow"
    assert line.metrics["decode_tps"].n == 3
    assert not [reason for reason in line.validity.reasons if "link" in reason]
