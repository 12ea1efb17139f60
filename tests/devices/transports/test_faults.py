"""Links that are cut at every stage before anything is measured, devices that are full or held by another: a
typed error, nothing left running there, and the same call goes on with what is there.
"""

from __future__ import annotations

import fcntl
import resource
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.devices.transports import bootstrap
from edgepress.devices.transports.answers import DeviceError, Facts, Folder, Have, Stored
from edgepress.devices.transports.sending import bundle_files, prepare, send_bundle
from edgepress.devices.transports.ssh import Link
from edgepress.errors import OutOfResource, OutputBusy
from edgepress.export.api import export_bundle
from edgepress.files.storage import sha256_file
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.terminal.progress import Silent

from ...loopback import Loopback

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def bundle(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(
        export_bundle(pico_llama, output=tmp_path_factory.mktemp("faults") / "pico", validate=False)
    )


def eventually(true: Callable[[], bool]) -> bool:
    """Whether it becomes true within thirty seconds."""
    pause = threading.Event()
    return any(true() or pause.wait(0.1) for _ in range(300))


class CutLink(Link):
    """A link that is cut when a request of this kind has been sent, and its answer is waited for."""

    def __init__(self, kind: str, cut: Callable[[CutLink], None]) -> None:
        super().__init__("pi", "loopback")
        self._kind, self._cut, self.asked = kind, cut, list[str]()

    def send(self, request: dict[str, Any]) -> None:
        super().send(request)
        self.asked.append(request["do"])
        if request["do"] == self._kind:
            self._kind = ""
            self._cut(self)


def near(link: CutLink) -> None:
    """The ssh here ends."""
    link._process.kill()


@pytest.mark.parametrize("side", ["near", "far"])
def test_cut_at_every_request_the_same_call_goes_on(loopback: Loopback, bundle: Bundle, side: str) -> None:
    def far(_: Link) -> None:
        """The sshd there ends, once there is a session."""
        assert eventually(lambda: any("python" in one.name() for one in loopback.sessions()))
        loopback.cut()

    cut = near if side == "near" else far
    for kind in ("probe", "folder", "have", "put", "place"):
        with pytest.raises(DeviceError, match="the link to pi was lost"), CutLink(kind, cut) as link:
            prepare(link, [bundle], Silent())
            pytest.fail(f"{kind} was answered")
        assert eventually(lambda: not loopback.sessions()), f"something is left running after {kind}"
    with CutLink("", near) as whole:
        prepared = prepare(whole, [bundle], Silent())
    assert Path(prepared.bundles[0], "model.onnx").read_bytes() == (bundle.path / "model.onnx").read_bytes()
    with CutLink("", near) as again:
        assert prepare(again, [bundle], Silent()) != ()
    assert "put" not in again.asked and "place" not in again.asked, "what is there is not sent"
    assert not list((loopback.home / "cache/device").glob("*/*.tmp"))


DYING = """
import socket, sys, threading
far, left = socket.create_connection(("127.0.0.1", int(sys.argv[1]))), int(sys.argv[2])
def up():
    while data := sys.stdin.buffer.read1(65536):
        far.sendall(data)
threading.Thread(target=up, daemon=True).start()
while left and (data := far.recv(min(left, 65536))):
    left -= len(data)
    sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
"""


@pytest.mark.parametrize("count", [0, pytest.param(20, marks=pytest.mark.slow), 1000, 2500])
def test_cut_while_it_connects(loopback: Loopback, tmp_path: Path, count: int) -> None:
    """After so many bytes: before its banner, within it, among the keys, before the first answer."""
    script, config = tmp_path / "dying.py", tmp_path / "bin/config"
    script.write_text(DYING)
    plain = config.read_text()
    config.write_text(f"{plain}  ProxyCommand {sys.executable} {script} {loopback.port} {count}\n")
    with pytest.raises(DeviceError) as caught, Link("pi", "loopback") as link:
        link.ask({"do": "probe"}, Facts)
    assert caught.value.exit_code == 4 and caught.value.fix
    assert eventually(lambda: not loopback.sessions())
    config.write_text(plain)
    with Link("pi", "loopback") as link:
        assert link.ask({"do": "probe"}, Facts).cpus >= 1


def test_a_device_that_starts_again(loopback: Loopback, bundle: Bundle) -> None:
    """All that ran there ends at once, for some time nobody answers, and then it goes on."""
    with pytest.raises(DeviceError, match="was lost"), Link("pi", "loopback") as link:
        link.ask({"do": "probe"}, Facts)
        loopback.lose_power()
        send_bundle(link, bundle, Silent())
    with pytest.raises(DeviceError, match="pi cannot be reached"), Link("pi", "loopback") as link:
        link.ask({"do": "probe"}, Facts)
    loopback.start()
    with Link("pi", "loopback") as link:
        assert Path(send_bundle(link, bundle, Silent()), "manifest.json").exists()


def test_two_that_send_the_same_at_once(loopback: Loopback, bundle: Bundle) -> None:
    objects = loopback.home / "cache/device/objects"
    objects.mkdir(parents=True)
    first = bundle_files(bundle)[0][1]
    with (objects / f"{first}.part").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OutputBusy) as caught, Link("pi", "loopback") as link:
            send_bundle(link, bundle, Silent())
    assert "wait until the other has ended" in caught.value.fix
    assert eventually(lambda: not loopback.sessions())
    with Link("pi", "loopback") as link:
        assert send_bundle(link, bundle, Silent())


def test_a_disk_that_is_full_when_packages_are_unpacked(loopback: Loopback, tmp_path: Path) -> None:
    """What was sent stays, what was half unpacked does not; the same goes on when there is room."""
    file = tmp_path / "large-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large/zeros", bytes(2 << 20))
    piece = sha256_file(file)
    place = {"do": "place", "kind": "environments", "key": "e", "files": [[file.name, piece]]}
    loopback.stop()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))  # what sshd's sessions inherit
    try:
        loopback.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    with pytest.raises(OutOfResource) as caught, Link("pi", "loopback") as link:
        link.send({"do": "put", "sha256": piece, "size": file.stat().st_size, "offset": 0})
        link.send_file(file, 0, lambda _: None)
        assert link.answer(Stored).stored
        link.ask(place, Folder)
    assert "free some memory or disk on pi" in caught.value.fix
    assert not list((loopback.home / "cache/device/environments").iterdir())
    loopback.stop()
    loopback.start()
    with Link("pi", "loopback") as link:
        assert link.ask({"do": "have", "pieces": [piece]}, Have).whole == [True]
        assert Path(link.ask(place, Folder).path, "large/zeros").stat().st_size == 2 << 20


def test_a_near_end_that_falls_silent_is_not_waited_for() -> None:
    """The far end ends when its lease is over, though its link still stands."""
    source = Path(bootstrap.__file__).read_text(encoding="utf-8")
    short = source.replace("LEASE_S = 60\n", "LEASE_S = 1\n")
    assert short != source
    with subprocess.Popen([sys.executable, "-I", "-c", short], stdin=subprocess.PIPE) as far:
        assert far.wait(30) == -signal.SIGALRM
