"""A link over a real sshd on the loopback: the probe, host keys, refusals, and a device that is gone."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.devices.transports import ssh
from edgepress.devices.transports.answers import DeviceError, Facts
from edgepress.devices.transports.ssh import Link, require_address
from edgepress.errors import InputError, RefusedByPolicy

from ...loopback import Loopback

pytestmark = pytest.mark.chain
PROBE = {"do": "probe"}


def eventually(true: Callable[[], bool]) -> bool:
    """Whether it becomes true within twenty seconds."""
    pause = threading.Event()
    return any(true() or pause.wait(0.1) for _ in range(200))


def test_the_probe(loopback: Loopback) -> None:
    with Link("pi", loopback.address) as link:
        facts = link.ask(PROBE, Facts)
        again = link.ask(PROBE, Facts)
    assert (facts.os, facts.machine) == (os.uname().sysname, os.uname().machine)
    assert facts.version >= (3, 11) and facts.memory_available <= facts.memory_total
    assert again.processor == facts.processor
    assert eventually(lambda: not loopback.sessions()), "nothing is left running there"


def test_an_unknown_host_key_is_refused(loopback: Loopback) -> None:
    (loopback.folder / "known").write_text("")
    with pytest.raises(RefusedByPolicy, match="not known here") as caught, Link("pi", "loopback") as link:
        link.ask(PROBE, Facts)
    assert "ssh loopback" in caught.value.fix


def test_another_host_key_is_refused(loopback: Loopback) -> None:
    loopback.trust((loopback.folder / "user.pub").read_text())
    with pytest.raises(RefusedByPolicy, match="another one than before"), Link("pi", "loopback") as link:
        link.ask(PROBE, Facts)


def test_who_may_not_in_is_told_how(loopback: Loopback) -> None:
    (loopback.folder / "authorized").write_text("")
    with pytest.raises(DeviceError, match="does not let you in") as caught, Link("pi", "loopback") as link:
        link.ask(PROBE, Facts)
    assert caught.value.exit_code == 4


def test_a_device_that_is_off(loopback: Loopback) -> None:
    loopback.stop()
    with pytest.raises(DeviceError, match="cannot be reached"), Link("pi", "loopback") as link:
        link.ask(PROBE, Facts)


def test_a_device_without_python(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "COMMAND", ssh.COMMAND.replace("python3", "no-such-python"))
    with pytest.raises(DeviceError, match=r"no Python 3\.11 or newer"), Link("pi", "loopback") as link:
        link.ask(PROBE, Facts)


def test_a_link_that_is_cut(loopback: Loopback) -> None:
    with pytest.raises(DeviceError, match="was lost"), Link("pi", "loopback") as link:
        link.ask(PROBE, Facts)
        loopback.cut()
        link.ask(PROBE, Facts)
    assert eventually(lambda: not loopback.sessions())


def test_a_device_that_falls_silent(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="nothing came for 1 s"), Link("pi", "loopback") as link:
        link.ask(PROBE, Facts)  # which may take longer than that on a busy machine
        monkeypatch.setattr(ssh, "SILENCE_S", 1.0)
        stopped = [process for process in loopback.sessions() if "python" in process.name()]
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        link.ask(PROBE, Facts)
    for process in stopped:
        process.send_signal(signal.SIGCONT)
    assert stopped and eventually(lambda: not loopback.sessions())


@pytest.mark.parametrize("printed", ["Welcome to pi!", "{}", "[1]", '{"os": 1}', "[" * 100_000, '{"a": NaN}'])
def test_what_a_shell_prints_is_no_answer(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    file = loopback.folder / "printed"
    file.write_text(f"{printed}\n")
    monkeypatch.setattr(ssh, "COMMAND", f"cat {file}; {ssh.COMMAND}")
    with pytest.raises(RefusedByPolicy, match="no answer of edgepress"), Link("pi", "loopback") as link:
        link.ask(PROBE, Facts)


@pytest.mark.parametrize(
    "address", ["", "-oProxyCommand=touch /tmp/x", "pi;reboot", "a b", "$(id)", "x" * 300]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InputError, match="no address for ssh"):
        require_address(address)


@pytest.mark.parametrize("address", ["pi", "pi@10.0.0.2", "ssh://pi@raspberrypi:2222", "pi@[fe80::1%eth0]"])
def test_what_is_an_address(address: str, tmp_path: Path) -> None:
    assert require_address(address) == address
