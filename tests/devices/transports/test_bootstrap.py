"""The program that a device runs before anything is installed there, called in this process."""

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


def test_a_session_that_was_killed_while_it_made_a_folder_blocks_no_other(
    tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, url = served(tmp_path, b"weights")
    bootstrap.fetch(sha256, url)

    def killed(path: Path, text: str) -> int:
        with path.open("w") as stream:
            stream.write(text[:5])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            bootstrap.place("bundles", "a", [["model.onnx", sha256]])
    bootstrap.sweep()
    assert list((device / "bundles").iterdir()) == []
    assert bootstrap.have([sha256])["whole"] == [False]


def test_a_piece_that_is_not_there_leaves_no_folder(device: Path) -> None:
    with pytest.raises(OSError, match="not there any more"):
        bootstrap.place("bundles", "a", [["model.onnx", "0" * 64]])
    assert list((device / "bundles").iterdir()) == []


def test_of_two_sessions_that_sweep_at_once_neither_fails(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device / "bundles/x.1.tmp").mkdir(parents=True)
    seen = list(device.glob("*/*.tmp"))
    monkeypatch.setattr(Path, "glob", lambda *_: iter(seen))
    bootstrap.sweep()
    bootstrap.sweep()
    assert not seen[0].exists()


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
