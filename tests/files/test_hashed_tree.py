"""Directories held against the hashes of their files: every difference is a sentence."""

import os
import random
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from edgepress.files.hashed_tree import check_tree, hash_tree


def test_check_tree_finds_every_difference(tmp_path: Path) -> None:
    for name in ("same", "sub/gone", "longer", "flipped"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    files = hash_tree(tmp_path, skip=frozenset({"manifest.json"}))
    (tmp_path / "manifest.json").write_text("{}")
    skip = frozenset({"manifest.json"})
    assert check_tree(tmp_path, files, skip=skip) == []
    (tmp_path / "sub" / "gone").unlink()
    (tmp_path / "longer").write_text("longer!")
    (tmp_path / "flipped").write_text("flippeD")
    (tmp_path / "stray").symlink_to("nowhere")
    assert check_tree(tmp_path, files, skip=skip) == [
        "flipped does not match its SHA-256",
        "longer has 7 bytes, the manifest says 6",
        "sub/gone is missing",
        "stray is a symbolic link",
        "sub is an empty directory",
    ]
    (tmp_path / "sub").rename(tmp_path / "below")
    within = check_tree(tmp_path / "below", {"../same": files["same"]}, skip=skip)
    assert within == ["../same is missing"]


NO_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs and other permissions")


def tree(folder: Path, *names: str) -> dict[str, dict[str, Any]]:
    """A directory of files that hold their own names, and the hashes of them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return hash_tree(folder)


@NO_WINDOWS
def test_check_tree_names_what_is_no_file_and_opens_none_of_it(tmp_path: Path) -> None:
    files = tree(tmp_path / "t", "a", "b", "c", "sub/d", "Upper")
    root = tmp_path / "t"
    for name in ("a", "b", "c"):
        (root / name).unlink()
    os.mkfifo(root / "a")
    (root / "b").symlink_to(root)
    (root / "c").mkdir()
    (root / "Upper").rename(root / "upper")
    os.mkfifo(root / "sub" / "pipe")
    (root / "sub" / "empty" / "below").mkdir(parents=True)
    (root / "sub" / "x\n\x1b[31m\udcff").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(root / "s"))
    assert check_tree(root, files, skip=frozenset()) == [
        "Upper is missing, though upper is there",
        "a is a FIFO",
        "b is a symbolic link",
        "c is an empty directory",
        "s is a socket",
        "sub/empty/below is an empty directory",
        "sub/pipe is a FIFO",
        "'sub/x\\n\\x1b[31m\\udcff' is not in the manifest",
        "upper is not in the manifest",
    ]
    assert list(hash_tree(root)) == ["sub/d", "sub/x\n\x1b[31m\udcff", "upper"]


@NO_WINDOWS
def test_check_tree_names_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tree(tmp_path / "t", "open", "closed", "sub/below")
    monkeypatch.chdir(tmp_path / "t")
    Path("closed").chmod(0)
    Path("sub").chmod(0)
    root_user = os.geteuid() == 0
    try:
        if root_user:  # who may read everything
            os.seteuid(65534)
        problems = check_tree(Path(), files, skip=frozenset())
    finally:
        if root_user:
            os.seteuid(0)
        Path("sub").chmod(0o700)
    assert problems == [
        "closed cannot be read: Permission denied",
        "sub/below is missing",
        "sub is a directory that cannot be read",
    ]


def test_a_hundred_directories_as_they_were_written_have_no_difference(tmp_path: Path) -> None:
    generator = random.Random(0)
    for index in range(100):
        names = {f"{generator.choice('abc')}{generator.randrange(9)}/{depth}" for depth in range(5)}
        files = tree(tmp_path / str(index), *names, "Config", "config.json")
        copy = tmp_path / f"copy {index}"
        shutil.copytree(tmp_path / str(index), copy, copy_function=shutil.copyfile)
        assert check_tree(copy, files, skip=frozenset()) == []
