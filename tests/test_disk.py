"""The disk that is written to: what is too little room, and the file system's errors as typed ones."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from edgepress.disk import disk_full_is_typed, require_disk
from edgepress.errors import InputError, OutOfResource


def test_require_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**10, 0, 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    require_disk(tmp_path / "not" / "there", 10**9)
    with pytest.raises(OutOfResource, match=r"needs 1\.50 GB of disk, 1\.00 GB are free"):
        require_disk(tmp_path / "not" / "there", 15 * 10**8)


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
