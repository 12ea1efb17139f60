"""Faults while a device measures and while its results come: what was measured is kept, and the same call
goes on.
"""

import fcntl
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from edgepress.benchmarks.speed import far_end
from edgepress.benchmarks.speed.elsewhere import measure_kernels_on, profile_on
from edgepress.benchmarks.speed.far_end import only_one
from edgepress.devices.kernel_table.table import KernelTable, read_table
from edgepress.devices.transports.answers import DeviceError
from edgepress.devices.transports.ssh import Link
from edgepress.errors import OutOfResource, OutputBusy

from ...loopback import Loopback
from .test_elsewhere import PI, Seen, asked, bundle, eventually, left_running, machine

pytestmark = pytest.mark.chain
__all__ = ["bundle", "machine"]


def clean(device: Loopback) -> bool:
    """Whether nothing runs there, and nothing half done lies there."""
    return eventually(lambda: not left_running(device))


@pytest.mark.slow
def test_cut_when_the_results_come(machine: Loopback, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All was measured there: nothing of it is measured again."""
    receive = Link.receive

    def cut(link: Link) -> dict[str, Any]:
        message = receive(link)
        if "line" in message:
            machine.cut()
            while True:
                receive(link)
        return message

    with monkeypatch.context() as patch:
        patch.setattr(Link, "receive", cut)
        with pytest.raises(DeviceError, match="was lost"):
            profile_on(PI, asked(bundle), Seen())
    assert clean(machine)
    (line,) = profile_on(PI, asked(bundle), Seen())
    assert line.state["earlier_rounds"] == line.metrics["decode_tps"].n == 3
    assert clean(machine)


def test_a_device_that_starts_again_while_it_measures(machine: Loopback, bundle: Path) -> None:
    def reboot() -> None:
        orphans = left_running(machine)
        machine.lose_power()
        orphans += left_running(machine)  # what was just starting
        for process in orphans:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(orphans, timeout=5)  # one that is still ending holds its folder

    with pytest.raises(DeviceError, match="was lost"):
        profile_on(PI, asked(bundle), Seen("measuring", 2, reboot))
    with pytest.raises(DeviceError, match="cannot be reached"):
        profile_on(PI, asked(bundle), Seen())
    machine.start()
    (line,) = profile_on(PI, asked(bundle), Seen())
    assert line.state["earlier_rounds"] >= 1
    assert clean(machine)
    assert list((machine.home / "cache/device/work").iterdir()) == [], "what it left half done is swept"


def kept_there(device: Loopback) -> KernelTable:
    (path,) = (device.home / "cache/device/kernels").glob("*.json")
    return read_table(path)


@pytest.mark.slow
def test_cut_while_it_measures_kernels(machine: Loopback) -> None:
    """What was timed is kept there; the next call has it."""
    with pytest.raises(DeviceError, match="was lost"):
        measure_kernels_on(PI, Seen("measuring kernels", 3, machine.cut), limit_s=20)
    assert clean(machine)
    first = kept_there(machine)
    assert first.bandwidth and not first.complete
    second = measure_kernels_on(PI, Seen(), limit_s=6)
    assert second.bandwidth[: len(first.bandwidth)] == first.bandwidth
    assert second.reach_bytes == first.reach_bytes
    assert clean(machine)


def test_a_disk_that_is_full_while_it_measures(machine: Loopback) -> None:
    measure_kernels_on(PI, Seen(), limit_s=1)  # so that the packages are there, which would not fit either
    machine.stop()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, limit[1]))  # what sshd's sessions inherit
    try:
        machine.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    with pytest.raises(OutOfResource) as caught:
        measure_kernels_on(PI, Seen(), limit_s=8)
    assert "free some memory or disk on pi" in caught.value.fix
    assert clean(machine)
    assert list((machine.home / "cache/device/work").iterdir()) == []
    machine.stop()
    machine.start()


def test_of_two_users_at_once_one_measures(machine: Loopback, bundle: Path) -> None:
    """The second is refused, unless the first has ended when it arrives; the first is not disturbed."""
    found: list[KernelTable | OutputBusy] = []

    def second() -> None:
        try:
            found.append(measure_kernels_on(PI, Seen(), limit_s=5))
        except OutputBusy as error:
            found.append(error)

    other = threading.Thread(target=second)

    def start() -> None:
        other.start()
        other.join()

    (line,) = profile_on(PI, asked(bundle), Seen("measuring", 1, start))
    assert line.metrics["decode_tps"].n == 3
    assert len(found) == 1
    assert clean(machine)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "edgepress-measuring"


def test_what_another_user_put_in_the_place_of_the_lock(place: Path) -> None:
    with only_one(place.parent), pytest.raises(OutputBusy, match="another measurement"):  # noqa: SIM117
        with only_one(place.parent):
            pytest.fail("two hold it")
    place.unlink()
    place.symlink_to("/etc/passwd")
    with pytest.raises(OutputBusy, match="not to be opened"), only_one(place.parent):
        pytest.fail("a link was followed")
    place.unlink()
    os.mkfifo(place)
    with only_one(place.parent):
        pass  # it is opened without waiting for a writer
    held = os.open(place, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(OutputBusy), only_one(place.parent):
        pytest.fail("it is held")
    os.close(held)


def test_a_near_end_that_falls_silent_ends_all_there(tmp_path: Path) -> None:
    """Its link still stands; what the far end started ends with it."""
    program = (
        f"import subprocess, sys; import {far_end.__name__} as far; far.LEASE_S = 2; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "print(child.pid, flush=True); far.main()"
    )
    environment = {**os.environ, "EDGEPRESS_CACHE": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as far:
        assert far.stdout is not None
        child = int(far.stdout.readline())
        assert far.wait(60) == 1
        assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()
    assert list((tmp_path / "device/work").iterdir()) == []
