"""Locks of outputs: one holder at a time, and nothing of a user's is taken for one."""

import os
import socket
import threading
from pathlib import Path

import pytest
from edgepress.errors import InputError, OutputExists
from edgepress.files.output_lock import MARK, OutputLock


def test_one_holds_it_and_removes_it(tmp_path: Path) -> None:
    first, second = OutputLock(tmp_path / "lock"), OutputLock(tmp_path / "lock")
    assert first.acquire() and (tmp_path / "lock").read_bytes() == MARK
    assert not second.acquire()
    first.release()
    assert not (tmp_path / "lock").exists()
    assert second.acquire()
    second.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [b"", MARK])
def test_what_a_killed_process_left_is_taken_over(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "lock").write_bytes(left)
    lock = OutputLock(tmp_path / "lock")
    assert lock.acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_who_waits_gets_it_next(tmp_path: Path) -> None:
    first, second = OutputLock(tmp_path / "lock"), OutputLock(tmp_path / "lock")
    assert first.acquire()
    got: list[bool] = []
    waiting = threading.Thread(target=lambda: got.append(second.acquire(wait=True)))
    waiting.start()
    assert not got
    first.release()  # the file goes, so the one that waits opens the next
    waiting.join(timeout=60)
    assert got == [True] and (tmp_path / "lock").read_bytes() == MARK
    assert not first.acquire()
    second.release()


@pytest.mark.parametrize("kind", ["file", "longer", "link", "dangling link", "directory", "fifo", "socket"])
def test_what_a_user_has_there_stays(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path, victim = Path("lock"), tmp_path / "victim"
    if kind.endswith("link"):
        path.symlink_to(victim)
        if kind == "link":
            victim.write_bytes(MARK)
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.write_bytes(b"mine" if kind == "file" else MARK + b"and a note")
    before = path.lstat()
    with pytest.raises(OutputExists, match="not a lock of edgepress"):
        OutputLock(path).acquire()
    after = path.lstat()
    assert (before.st_ino, before.st_size, before.st_mode) == (after.st_ino, after.st_size, after.st_mode)
    assert victim.exists() == (kind == "link")


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match="cannot lock"):
        OutputLock(tmp_path / "lock").acquire()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        OutputLock(tmp_path / "nothing" / "lock").acquire()
