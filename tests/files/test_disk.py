"""The disk that is written to: what is too little room, and the file system's errors as typed ones."""

import errno
import os
import shutil
import stat
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.errors import InputError, OutOfResource
from edgepress.files.disk import (
    disk_full_is_typed,
    disk_size,
    require_disk,
    require_writable,
    sync_directory,
    sync_tree,
)


def test_require_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**10, 0, 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    require_disk(tmp_path / "not" / "there", 10**9)
    with pytest.raises(OutOfResource, match=r"needs 1\.50 GB of disk, 1\.00 GB are free"):
        require_disk(tmp_path / "not" / "there", 15 * 10**8)


def test_a_cache_that_cannot_be_written_is_named_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    for folder, way_out in (("cache/gguf", "EDGEPRESS_CACHE"), ("out", "another output path")):
        with pytest.raises(InputError) as refused, disk_full_is_typed(tmp_path / folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        assert way_out in refused.value.fix


@pytest.mark.parametrize(
    ("size", "shown"),
    [(300, "0 kB"), (4096, "4 kB"), (20_500_000, "20 MB"), (530_000_000, "0.53 GB"), (26e9, "26 GB")],
)
def test_sizes_have_the_unit_that_says_something(size: float, shown: str) -> None:
    assert disk_size(size) == shown


def test_what_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, tmp_path / "new", tmp_path / "not" / "there"):
        require_writable(path)
    with pytest.raises(InputError, match="file is no directory"):
        require_writable(file / "below")
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    for path in (file, tmp_path / "new"):
        with pytest.raises(InputError, match="may not be written"):
            require_writable(path)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *[(number, OutOfResource) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)],
        *[(number, InputError) for number in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)],
        *[(number, InputError) for number in (errno.ENOTDIR, errno.EEXIST)],
        (errno.EIO, OutOfResource),
        (errno.EINTR, OutOfResource),
        (errno.EBUSY, OSError),
    ],
)
def test_errors_of_the_file_system_are_typed(tmp_path: Path, number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=os.strerror(number)) as caught, disk_full_is_typed(tmp_path / "out"):
        raise OSError(number, os.strerror(number))
    if kind is not OSError:
        assert str(tmp_path / "out") in str(caught.value)


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
