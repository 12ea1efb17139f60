"""The disk that is written to: what is too little room, and the file system's errors as typed ones."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from edgepress.errors import InputError, OutOfResource
from edgepress.files.disk import disk_full_is_typed, disk_size, require_disk, require_writable


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
        (errno.EBUSY, OSError),
    ],
)
def test_errors_of_the_file_system_are_typed(tmp_path: Path, number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=os.strerror(number)) as caught, disk_full_is_typed(tmp_path / "out"):
        raise OSError(number, os.strerror(number))
    if kind is not OSError:
        assert str(tmp_path / "out") in str(caught.value)
