"""A real sshd on the loopback, with keys, port and home of its own: a device for tests.

``ssh`` is found on the PATH as a script that reads this configuration and no other, so that the product has
no option for tests. Where there is no sshd, the tests that need one are skipped and say so.
"""

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import psutil
import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SSH = shutil.which("ssh")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def bare_python() -> str:
    """This version of Python without the packages that are installed here."""
    return str(getattr(sys, "_base_executable", sys.executable))


class Loopback:
    """One sshd; ``address`` is what ``--ssh`` takes. Its home is ``home``, where it keeps what is sent."""

    def __init__(self, folder: Path, address: str = "loopback") -> None:
        self.folder, self.address, self.home = folder, address, folder / "home"
        (self.home / "tmp").mkdir(parents=True)
        self.port = _free_port()
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        self.trust((folder / "host.pub").read_text(encoding="ascii"))
        (folder / "python").mkdir()
        (folder / "python/python3").symlink_to(bare_python())
        self._process: subprocess.Popen[bytes] | None = None

    def trust(self, key: str) -> None:
        """The host key that the client knows the device by."""
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {key}", encoding="ascii")

    def start(self, **environment: str) -> None:
        """Listen; ``environment`` is that of every session, beside home and the cache."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd run by root asks for it
        own = {"HOME": str(self.home), "TMPDIR": str(self.home / "tmp"), "OMP_NUM_THREADS": "1"}
        own |= {"PATH": f"{self.folder / 'python'}:/usr/bin:/bin"}
        own |= {"EDGEPRESS_CACHE": str(self.home / "cache"), **environment}
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder / 'host'}",
            f"AuthorizedKeysFile {self.folder / 'authorized'}",
            f"PidFile {self.folder / 'pid'}",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "StrictModes no",
            "UsePAM no",
            "SetEnv " + " ".join(f"{key}={shlex.quote(value)}" for key, value in own.items()),
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.folder / "ssh_config").write_text(self._client(), encoding="utf-8")
        assert SSHD is not None
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
        )
        log.close()
        self._await()

    def _await(self) -> None:
        for _ in range(400):
            with socket.socket() as one:
                one.settimeout(1)
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            try:
                assert self._process is not None
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
        pytest.skip(f"sshd does not run here: {(self.folder / 'log').read_text(errors='replace')[-300:]}")

    def _client(self) -> str:
        return (
            f"Host {self.address}\n  HostName 127.0.0.1\n  Port {self.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {self.folder / 'user'}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.folder / 'known'}\n  GlobalKnownHostsFile /dev/null\n"
            "  LogLevel ERROR\n"
        )

    def sessions(self) -> list[psutil.Process]:
        """The processes of its connections, and all that they started."""
        if self._process is None or not psutil.pid_exists(self._process.pid):
            return []
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def lose_power(self) -> None:
        """End all that runs there at once, sshd too."""
        for process in self.sessions():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.stop()

    def cut(self) -> None:
        """End every connection at once, as a link that breaks; what they started is left to itself."""
        for process in self.sessions():
            with suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """No longer listen, and end all connections."""
        self.cut()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


def client(folder: Path, devices: list[Loopback]) -> Path:
    """A folder for the PATH whose ``ssh`` knows ``devices`` and nothing of the user's."""
    folder.mkdir()
    config = folder / "config"
    config.write_text("".join((one.folder / "ssh_config").read_text() for one in devices), encoding="utf-8")
    script = folder / "ssh"
    script.write_text(f'#!/bin/sh\nexec {SSH} -F {shlex.quote(str(config))} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return folder


def require_sshd() -> None:
    """Skip the test where there is none."""
    if SSHD is None or SSH is None:
        pytest.skip("no sshd here (apt-get install openssh-server, as .ci/run does)")


def stubs(folder: Path) -> Path:
    """A folder of wheels that hold nothing, for what is sent and not run."""
    from edgepress.devices.transports.wheels import pins

    folder.mkdir()
    for name, version in pins().items():
        path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}/nothing", name)
    return folder


def installed_wheels(folder: Path) -> Path:
    """A folder of wheels made of the packages that are installed here, for devices without a network."""
    from edgepress.devices.transports.wheels import pins

    folder.mkdir()
    for name, version in pins().items():
        found = metadata.distribution(name)
        path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for file in found.files or []:
                skipped = {"tests", "__pycache__", "..", "f2py"} & set(file.parts)
                if not skipped and file.suffix not in (".pyi", ".h", ".a"):
                    archive.write(str(found.locate_file(file)), str(file))
    return folder
