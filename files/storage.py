"""Files: hashes, contained names, regular files alone, and atomic writes."""

import hashlib
import io
import json
import mmap
import os
import re
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, RefusedByPolicy
from .third_party_errors import memory_shortage

# Bytes of a file that are mapped at once, to hash them.
WINDOW = 1 << 28
_HUGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)


def cache_directory() -> Path:
    """Where made models are kept: ``EDGEPRESS_CACHE``, else the platform's cache directory."""
    chosen = os.environ.get("EDGEPRESS_CACHE")
    if chosen:
        # Path's own raises where there is no such user.
        return Path(os.path.expanduser(chosen)).absolute()  # noqa: PTH111
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgepress"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "edgepress" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgepress"


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SPECIAL = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading; nothing else is opened, since a pipe would be waited for and a device
    has no end.
    """
    _require_regular(path, path.stat().st_mode)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)  # it may have been replaced since
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _SPECIAL.get(stat.S_IFMT(mode), "something else")
        raise InputError(
            f"cannot read {path}: it is {kind}, not a regular file", fix="give the path of a plain file"
        )


def is_regular(path: Path) -> bool:
    """Whether there is a regular file; raises InputError where there is something else in its place."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    _require_regular(path, mode)
    return True


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file; raises as :func:`open_regular`."""
    with open_regular(path) as stream:
        return stream.read()


def read_at_most(path: Path, most: int, kind: str, fix: str = "") -> bytes:
    """The bytes of a regular file that has at most ``most``; errors call it the ``kind``."""
    try:
        with open_regular(path) as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise memory_shortage(error) or InputError(f"cannot read the {kind} {path}", why=str(error)) from None
    if len(data) > most:
        raise InputError(f"{path} is larger than {most >> 20} MB, more than any {kind} that is read", fix=fix)
    return data


def read_text(path: Path) -> str:
    """The text of a regular file in UTF-8, lines ended by ``\\n``; raises as :func:`open_regular`."""
    with io.TextIOWrapper(open_regular(path), encoding="utf-8") as stream:
        return stream.read()


def sha256_file(path: Path, tick: Callable[[float], None] | None = None) -> str:
    """Hex SHA-256 of a file's bytes, read in chunks, whose sizes ``tick`` receives."""
    found, part = hashlib.sha256(), memoryview(bytearray(1 << 18))
    with open_regular(path) as stream:
        while count := stream.readinto(part):
            found.update(part[:count])
            if tick is not None:
                tick(count)
    return found.hexdigest()


def sha256_mapped(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, mapped: it takes the interpreter once for each :data:`WINDOW` of them,
    where reading waits for it at every chunk. For files that are mapped anyway: one that is cut short
    meanwhile ends the process. What has to be read from the disk comes in huge pages where the system has
    them, and stays so for whoever maps it next.
    """
    found = hashlib.sha256()
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        for start in range(0, size, WINDOW):
            length = min(WINDOW, size - start)
            with mmap.mmap(stream.fileno(), length, access=mmap.ACCESS_READ, offset=start) as window:
                if _HUGE is not None:
                    with suppress(OSError):  # a kernel without them
                        window.madvise(_HUGE)
                found.update(window)
    return found.hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values have equal text, so it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def require_plain(root: Path, name: str) -> None:
    """Refuse absolute paths, ``..`` and what is no name at all, as the name of a file below ``root``."""
    candidate = Path(name)
    if candidate.is_absolute() or ".." in candidate.parts or "\x00" in name or not candidate.parts:
        raise RefusedByPolicy(f"file name {name!r} points outside its directory {root}")


def contained(root: Path, name: str) -> Path:
    """``root / name`` for a plain relative name; refuses absolute paths, ``..``, and links that leave
    ``root``.
    """
    require_plain(root, name)
    path = root / name
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # too long, not encodable, a loop of links
        raise RefusedByPolicy(f"file name {name!r} is none that {root} can hold", why=str(error)) from None
    if not inside:
        raise RefusedByPolicy(f"file {name!r} is a link that leaves its directory {root}")
    return path


def keep_from_others(descriptor: int) -> None:
    """Take from everybody but the owner the right to write to an open file, whatever the umask gave them."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & 0o022 and hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode & ~0o022)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, even across a power cut."""
    # A name that nobody can have taken or guessed, so that no file and no link of a user is written to.
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    stream = temporary.open("xb")
    try:
        with stream:
            stream.write(data)
            stream.flush()
            keep_from_others(stream.fileno())
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file of lines; one that a kill cut short is ended before it, so that this one is
    whole.
    """
    torn = False
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            torn = stream.read() != b"\n"
    with path.open("ab") as stream:
        stream.write(b"\n" * torn + line.encode() + b"\n")


def named_path(path: Path | str) -> Path:
    """A path that the system can be asked for."""
    if "\0" in str(path):
        raise InputError(f"a path holds a NUL character: {str(path)!r}", fix="name another path")
    return Path(path)


def lines_of(text: str) -> list[str]:
    """The lines of a text whose ends are ``\\n``. Those of :meth:`str.splitlines` end at U+2028 and U+0085 as
    well, which sentences and JSON strings may hold.
    """
    return text.removesuffix("\n").split("\n") if text else []


def write_json(path: Path, value: Any) -> None:
    """Atomically write indented JSON with a stable key order."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def read_json(path: Path, *, limit: int = 64 << 20) -> Any:
    """Parse a JSON file of at most ``limit`` bytes."""
    try:
        if path.stat().st_size > limit:
            raise InputError(f"{path} is larger than {limit} bytes, too large for a JSON file")
        text = read_regular(path).decode("utf-8")
        value = json.loads(text)
        if _SURROGATE.search(text):  # half of a pair is no character: nothing that holds it can be written
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except FileNotFoundError:
        raise InputError(f"missing file {path}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}", why=str(error)) from None
