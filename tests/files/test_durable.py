"""What is waited for before a rename: every file and directory of a tree, and what a disk says to it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.files.durable import sync_directory, sync_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Nested folders, an empty one, files that may not be written, and links out of it."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "deep" / "deeper").mkdir(parents=True)
    (root / "empty").mkdir()
    for name in ("a", "deep/b", "deep/deeper/c"):
        (root / name).write_text(name)
        (root / name).chmod(0o444)
    outside.mkdir()
    (outside / "d").write_text("d")
    (root / "file").symlink_to(outside / "d")
    (root / "folder").symlink_to(outside)
    return root


def waited_for(patch: pytest.MonkeyPatch, among: list[Path]) -> list[Path]:
    """The paths that fsync is called with from now on."""
    by_inode = {path.stat().st_ino: path for path in among}
    found: list[Path] = []
    patch.setattr(os, "fsync", lambda handle: found.append(by_inode[os.fstat(handle).st_ino]))
    return found


def test_every_file_and_directory_once_and_nothing_behind_a_link(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = [path for path in (tree, *tree.rglob("*")) if not path.is_symlink()]
    found = waited_for(monkeypatch, [*inside, tree.parent / "outside", tree.parent / "outside" / "d"])
    sync_tree(tree)
    assert sorted(found) == sorted(inside) and len(inside) == 7


def test_files_are_waited_for_before_the_directories_that_name_them(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = waited_for(monkeypatch, [tree, *tree.rglob("*")])
    sync_tree(tree)
    kinds = [path.is_dir() for path in found]
    assert kinds == sorted(kinds)


def failing(number: int, directories: bool) -> Callable[[int], None]:
    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode) == directories:
            raise OSError(number, os.strerror(number))

    return fsync


@pytest.mark.parametrize("directories", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_what_the_disk_does_not_take_is_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int, directories: bool
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number, directories))
    with pytest.raises(OSError, match=os.strerror(number)):
        sync_tree(tree)


def test_a_file_system_that_cannot_wait_for_directories(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL, directories=True))
    sync_tree(tree)
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL, directories=False))
    sync_directory(tree)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        sync_tree(tree)
