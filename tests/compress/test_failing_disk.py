"""A disk that fails at any one write: the error is typed, the old output is whole, the next run goes on."""

import errno
import io
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from edgepress.compress.api import compress_model
from edgepress.errors import EdgepressError, InputError, OutOfResource
from edgepress.files.hashed_tree import hash_tree
from safetensors import SafetensorError

pytestmark = pytest.mark.chain

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)


class FailingDisk:
    """Lets ``left`` calls that change the disk below ``root`` pass and fails the next one, as Python's own
    calls and those of safetensors' native code do.
    """

    def __init__(self, root: Path, left: int, number: int, patch: pytest.MonkeyPatch) -> None:
        self.root, self.left, self.number, self.failed = str(root), left, number, ""
        for name in ("mkdir", "rename", "replace", "fsync"):
            patch.setattr(os, name, self.wrapped(name, getattr(os, name)))
        patch.setattr(io, "open", self.wrapped("open", io.open))
        patch.setattr(
            safetensors.torch,
            "serialize_file",
            self.wrapped("native write", safetensors.torch.serialize_file),
        )

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            below = name in ("fsync", "native write") or str(arguments[0]).startswith(self.root)
            reads = name == "open" and not set("wxa+") & set(str(arguments[1:2] or options.get("mode", "r")))
            if below and not reads:
                self.left -= 1
                if self.left < 0 and not self.failed:
                    self.failed = name
                    what = os.strerror(self.number)
                    if name == "native write":
                        raise SafetensorError(f"I/O error: {what} (os error {self.number})")
                    raise OSError(self.number, what)
            return real(*arguments, **options)

        return call


@pytest.mark.parametrize(
    ("blocks", "each"),
    [(1, 3), pytest.param(1, 1, marks=pytest.mark.slow), pytest.param(3, 1, marks=pytest.mark.slow)],
)
def test_each_write_of_a_compression_may_fail(
    blocks: int, each: int, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "model", num_hidden_layers=blocks)
    old = compress_model(str(model), scheme="W8A8", output=tmp_path / "old")
    whole = compress_model(str(model), scheme="W4A16-g32", output=tmp_path / "whole")
    before, after, room = hash_tree(old), hash_tree(whole), tmp_path / "room"
    failed = []
    for passed in itertools.count(step=each):
        shutil.rmtree(room, ignore_errors=True)
        shutil.copytree(old, room / "out")
        number = ERRORS[passed % len(ERRORS)]

        def command() -> Path:
            return compress_model(str(model), scheme="W4A16-g32", output=room / "out", overwrite=True)

        with pytest.MonkeyPatch.context() as patch:
            disk = FailingDisk(room, passed, number, patch)
            try:
                command()
            except EdgepressError as error:
                kind = InputError if number == errno.EROFS else OutOfResource
                assert isinstance(error, kind) and str(room / "out") in error.what, (passed, disk.failed)
                assert hash_tree(room / "out") == before, (passed, disk.failed)
                command_result = None
            else:
                command_result = room / "out"
        if command_result is None:
            failed.append(disk.failed)
            command()
        assert hash_tree(room / "out") == after, (passed, disk.failed)
        assert [path.name for path in room.iterdir()] == ["out"]
        if not disk.failed:
            break
    assert {"mkdir", "rename", "replace", "fsync", "open", "native write"} <= set(failed)
