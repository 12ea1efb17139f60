"""What runs on a device before anything is installed there, with its own Python's standard library alone.

Its source is sent over the link, so it imports nothing of edgepress. Requests come on stdin and answers go to
stdout, a JSON line each; an empty line is a heartbeat. When the link ends, or is silent for a minute, it ends
too. The last request makes the process another one: ``become`` runs a module of what was sent.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import signal
import struct
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

LEASE_S = 60
CHUNK = 1 << 16
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CODES = {**dict.fromkeys(FULL, "E-RESOURCE"), errno.EAGAIN: "E-BUSY"}


def root() -> Path:
    """Where everything that was sent lies."""
    home = os.environ.get("EDGEPRESS_CACHE") or Path.home() / ".cache" / "edgepress"
    return Path(home) / "device"


def main() -> None:
    """Answer until the requests end."""
    sweep()
    while line := leased(sys.stdin.buffer.readline):
        if not line.strip():
            continue
        request = json.loads(line)
        try:
            say(ACTIONS[request.pop("do")](**request))
        except OSError as error:
            say({"error": {"code": CODES.get(error.errno or 0, "E-DEVICE"), "why": str(error)}})
            sys.exit(1)  # bytes that were not read must not be taken for requests


def say(answer: dict[str, Any]) -> None:
    """One answer."""
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def leased(read: Any, *arguments: Any) -> bytes:
    """What ``read`` reads; the process ends where that takes longer than the lease."""
    signal.alarm(LEASE_S)
    try:
        return bytes(read(*arguments))
    finally:
        signal.alarm(0)


def probe() -> dict[str, Any]:
    """What decides whether anything can run here."""
    place = next(path for path in (root(), *root().parents) if path.exists())
    total, available = memory()
    return {
        "os": platform.system(),
        "machine": platform.machine(),
        "bits": 8 * struct.calcsize("P"),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "libc": " ".join(platform.libc_ver()).strip(),
        "macos": platform.mac_ver()[0],
        "processor": processor(),
        "cpus": os.cpu_count() or 1,
        "memory_total": total,
        "memory_available": available,
        "disk_free": shutil.disk_usage(place).free,
        "clock": time.time(),
        "nvidia": Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None,
    }


def memory() -> tuple[int, int]:
    """Bytes in all and free; where the system does not say what is free, all of them."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in lines_of("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return total, int(line.split()[1]) << 10
    return total, total


def processor() -> str:
    """The name of the processor or the board."""
    for line in lines_of("/proc/cpuinfo"):
        if line.startswith(("model name", "Model\t")):
            return line.split(":", 1)[1].strip()[:200]
    return (platform.processor() or platform.machine())[:200]


def lines_of(path: str) -> list[str]:
    """The lines of a file of the kernel; none where there is no such file."""
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []


def sweep() -> None:
    """Remove what sessions that were killed left half done."""
    for left in root().glob("*/*.tmp"):
        with suppress(FileNotFoundError):  # another session removed it meanwhile
            if held(left):
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def hold(folder: Path) -> int:
    """Show other sessions that this process works in ``folder``, until it ends or closes what is returned."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    with suppress(OSError):  # a file system without such locks: the process that it is named after counts
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def held(folder: Path) -> bool:
    """Whether another session works in it. Its number alone would not say: after a restart another process
    has it, and one that was killed may keep it.
    """
    import fcntl

    owner = folder.name.split(".")[-2]
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return owner.isdecimal() and alive(int(owner))
    finally:
        os.close(handle)
    return False


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def piece(sha256: str) -> Path:
    """Where the bytes with this hash lie; with ``.part`` behind it those that have come so far."""
    return root() / "objects" / sha256


def have(pieces: list[str]) -> dict[str, Any]:
    """How many bytes of each there are already, and whether they are all."""
    placed = in_folders()
    files = [placed.get(sha256) or piece(sha256) for sha256 in pieces]
    whole = [file.exists() for file in files]
    parts = [piece(f"{sha256}.part") for sha256 in pieces]
    return {"whole": whole, "sizes": [part.stat().st_size if part.exists() else 0 for part in parts]}


def in_folders() -> dict[str, Path]:
    """Where the pieces of bundles lie: those are no links, so that they lie nowhere else."""
    found = {}
    for index in root().glob("bundles/*.json"):
        for name, sha256 in json.loads(index.read_text()):
            found[sha256] = index.with_suffix("") / name
    return {sha256: path for sha256, path in found.items() if path.is_file()}


def put(sha256: str, size: int, offset: int) -> dict[str, Any]:
    """Take the bytes from ``offset`` on from stdin, and keep them where they have the hash."""
    with open_part(sha256, offset) as part:
        left = size - offset
        while left:
            chunk = leased(sys.stdin.buffer.read, min(CHUNK, left))
            if not chunk:
                sys.exit(1)  # the link ended: what came stays
            part.write(chunk)
            left -= len(chunk)
    return {"stored": settle(sha256)}


def fetch(sha256: str, url: str) -> dict[str, Any]:
    """Get the bytes over this device's own network, where it has one."""
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=20) as source, open_part(sha256, 0) as part:
            while chunk := source.read(CHUNK):
                part.write(chunk)
                beat()
    except (OSError, ValueError):
        return {"stored": False}
    return {"stored": settle(sha256)}


def open_part(sha256: str, offset: int) -> Any:
    """The file of what came so far, locked, at ``offset``."""
    import fcntl

    path = piece(f"{sha256}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    part.seek(offset)
    part.truncate()
    return part


def settle(sha256: str) -> bool:
    """Give what came its name, where it has that hash; else remove it."""
    part, found = piece(f"{sha256}.part"), hashlib.sha256()
    with part.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            found.update(chunk)
            beat()
    if found.hexdigest() != sha256:
        part.unlink()
        return False
    part.rename(piece(sha256))
    return True


def beat() -> None:
    """Say that the work goes on."""
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def folder(kind: str, key: str) -> dict[str, Any]:
    """The path of a folder that was made before; "" where there is none."""
    path = root() / kind / key
    return {"path": str(path) if path.is_dir() else ""}


def place(kind: str, key: str, files: list[list[str]]) -> dict[str, Any]:
    """Make a folder of pieces by their names; those named ``*.whl`` are unpacked into it."""
    final = root() / kind / key
    temporary = final.with_name(f"{key}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    handle, placed = hold(temporary), in_folders()
    try:
        for name, sha256 in files:
            if name.endswith(".whl"):
                with zipfile.ZipFile(piece(sha256)) as wheel:
                    wheel.extractall(temporary)
            else:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                if piece(sha256).exists():
                    piece(sha256).rename(temporary / name)
                elif sha256 in placed:
                    shutil.copyfile(placed[sha256], temporary / name)
                else:
                    raise FileNotFoundError(errno.ENOENT, "a piece is not there any more", name)
            beat()
        keep_index(final, files)  # before: pieces that lie in a folder without one would be sent again
        temporary.rename(final)
    except OSError:
        if not final.is_dir():  # another session may have made it meanwhile
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # it is not there any more where all went well
        os.close(handle)
    return folder(kind, key)


def keep_index(final: Path, files: list[list[str]]) -> None:
    """Write beside the folder ``final`` which pieces lie in it; whole or not at all, since all sessions read
    it.
    """
    temporary = final.with_name(f"{final.name}.json.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(files))
        temporary.replace(final.with_name(f"{final.name}.json"))
    finally:
        temporary.unlink(missing_ok=True)


def become(environment: str, module: str) -> None:
    """Be another program, with what was sent and nothing of the user's."""
    own = {"PYTHONPATH": environment, "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}
    os.execve(sys.executable, [sys.executable, "-u", "-m", module], {**os.environ, **own})


def clear() -> dict[str, Any]:
    """Remove all that was ever sent."""
    shutil.rmtree(root(), ignore_errors=True)
    return {"cleared": not root().exists()}


ACTIONS: dict[str, Any] = {
    "probe": probe,
    "have": have,
    "put": put,
    "fetch": fetch,
    "folder": folder,
    "place": place,
    "become": become,
    "clear": clear,
}


if __name__ == "__main__":
    main()
