"""The program that a device runs before anything is installed there, called in this process."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest
from edgepress.devices.transports import bootstrap


@pytest.fixture(autouse=True)
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path))
    monkeypatch.setattr(bootstrap, "beat", lambda: None)
    return tmp_path / "device"


def served(tmp_path: Path, content: bytes) -> tuple[str, str]:
    path = tmp_path / "served"
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest(), path.as_uri()


def test_it_fetches_by_hash(tmp_path: Path, device: Path) -> None:
    sha256, url = served(tmp_path, b"wheel")
    assert bootstrap.fetch(sha256, url) == {"stored": True}
    assert (device / "objects" / sha256).read_bytes() == b"wheel"
    assert bootstrap.have([sha256, "0" * 64]) == {"whole": [True, False], "sizes": [0, 0]}


def test_other_bytes_and_no_network_leave_nothing(tmp_path: Path, device: Path) -> None:
    _, url = served(tmp_path, b"other bytes")
    assert bootstrap.fetch("0" * 64, url) == {"stored": False}
    assert bootstrap.fetch("0" * 64, (tmp_path / "gone").as_uri()) == {"stored": False}
    assert not any((device / "objects").glob("0" * 64 + "*"))


def test_folders_are_made_whole_and_pieces_of_bundles_are_found_again(tmp_path: Path, device: Path) -> None:
    sha256, url = served(tmp_path, b"weights")
    bootstrap.fetch(sha256, url)
    made = bootstrap.place("bundles", "a", [["sub/model.onnx", sha256]])
    assert Path(made["path"], "sub/model.onnx").read_bytes() == b"weights"
    assert Path(made["path"], "sub/model.onnx").stat().st_nlink == 1, "bundles refuse links"
    assert bootstrap.have([sha256])["whole"] == [True]
    again = bootstrap.place("bundles", "b", [["model.onnx", sha256]])
    assert Path(again["path"], "model.onnx").read_bytes() == b"weights"
    assert bootstrap.folder("bundles", "c") == {"path": ""}


def test_wheels_are_unpacked(tmp_path: Path, device: Path) -> None:
    with zipfile.ZipFile(tmp_path / "wheel", "w") as archive:
        archive.writestr("package/__init__.py", "")
    sha256, url = served(tmp_path, (tmp_path / "wheel").read_bytes())
    bootstrap.fetch(sha256, url)
    made = bootstrap.place("environments", "e", [["package-1-py3-none-any.whl", sha256]])
    assert Path(made["path"], "package/__init__.py").is_file()


def test_what_killed_sessions_left_is_swept_and_what_works_is_not(device: Path) -> None:
    gone, working = device / f"bundles/x.{os.getpid()}.tmp", device / "work/run.999999999.tmp"
    for folder in (gone, working):
        folder.mkdir(parents=True)
    handle = bootstrap.hold(working)
    bootstrap.sweep()
    assert not gone.exists(), "a process of its number is another one"
    assert working.exists()
    os.close(handle)
    assert bootstrap.clear() == {"cleared": True} and not device.exists()
