"""Hashes, contained names, atomic files, and outputs that appear whole or not at all, whatever ends a run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress import storage
from edgepress.errors import InputError, OutOfResource, OutputExists, RefusedByPolicy
from edgepress.storage import (
    Staging,
    canonical_json,
    check_tree,
    contained,
    disk_full_is_typed,
    hash_tree,
    read_json,
    require_disk,
    sha256_file,
    sha256_json,
    write_atomic,
    write_json,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# The function-scoped tmp_path is only looked at, never written by the examples that share it.
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(value=JSON)
def test_canonical_json_is_one_text_for_one_value(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(json.dumps(value))) == text
    assert sha256_json(value) == hashlib.sha256(text.encode()).hexdigest()


def test_canonical_json_ignores_the_order_of_keys_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [2]}) == '{"a":[2],"b":1}' == canonical_json({"a": [2], "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_sha256_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "chosen"))
    assert storage.cache_directory() == tmp_path / "chosen"
    monkeypatch.setenv("EDGEPRESS_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert storage.cache_directory() == tmp_path / "edgepress"


PARTS = st.sampled_from(["a", "..", ".", "", "/", "link", "loop", "\x00", "\ud800", "x" * 300, "b.txt"])


@shared_folder
@given(name=st.lists(PARTS | st.text(max_size=5), max_size=5).map("/".join))
def test_contained_never_leaves_its_directory(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    if not root.exists():
        root.mkdir()
        (root / "link").symlink_to(tmp_path)
        (root / "loop").symlink_to("loop")
    try:
        path = contained(root, name)
    except RefusedByPolicy:
        return
    # By the system's own resolution, not by what the function used.
    assert os.path.commonpath([os.path.realpath(path), os.path.realpath(root)]) == os.path.realpath(root)
    assert path.resolve() != root.resolve() and ".." not in path.parts


@pytest.mark.parametrize("name", ["a", "1_Pooling/config.json", "./a", "...", "a..b"])
def test_contained_takes_plain_names(tmp_path: Path, name: str) -> None:
    assert contained(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "a/../../b", "a/..", "a\x00b", "out/secret"])
def test_contained_refuses(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    with pytest.raises(RefusedByPolicy):
        contained(tmp_path / "root", name)


def test_write_atomic_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["f"]


def test_a_failed_write_keeps_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfResource, match="disk is full"), disk_full_is_typed(path):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["f"]


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"b": [1, None, "größer"], "a": {"x": 0.1}}
    write_json(tmp_path / "f.json", value)
    text = (tmp_path / "f.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "f.json") == value
    assert text.endswith("}\n") and text.index('"a"') < text.index('"b"') and "größer" in text


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b'{"a": 1} x'], ids=repr
)
def test_broken_json_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"config\.json is not valid JSON"):
        read_json(path)


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("[1, 2]")
    with pytest.raises(InputError, match="larger than 3 bytes"):
        read_json(tmp_path / "f", limit=3)
    with pytest.raises(InputError, match="missing file"):
        read_json(tmp_path / "nothing")
    for path in (tmp_path, tmp_path / "f" / "below"):
        with pytest.raises(InputError, match="cannot read"):
            read_json(path)


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
        "stray is not in the manifest",
    ]
    with pytest.raises(RefusedByPolicy):
        check_tree(tmp_path, {"../f": {"sha256": "", "bytes": 0}}, skip=skip)


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
        (errno.EIO, OSError),
    ],
)
def test_errors_of_the_file_system_are_typed(tmp_path: Path, number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=os.strerror(number)) as caught, disk_full_is_typed(tmp_path / "out"):
        raise OSError(number, os.strerror(number))
    if kind is not OSError:
        assert str(tmp_path / "out") in str(caught.value)


def result(path: Path, text: str) -> None:
    """What a run writes: a file, and last the manifest that makes the directory a result of ours."""
    path.mkdir(exist_ok=True)
    (path / "data").write_text(text)
    write_json(path / "edgepress.json", {"schema": "edgepress.checkpoint/1"})


def publish(target: Path, text: str, **options: bool) -> None:
    with Staging(target, **options) as stage:
        result(stage.directory, text)
        stage.publish()


def test_a_result_appears_as_the_last_act(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with Staging(target) as stage:
        result(stage.directory, "new")
        assert not target.exists()
        stage.publish()
    assert (target / "data").read_text() == "new"
    assert names(target.parent) == ["out"]


def test_a_part_of_the_staging_directory_is_published(tmp_path: Path) -> None:
    with Staging(tmp_path / "out", keep=True) as stage:
        (stage.directory / "work").mkdir()
        result(stage.directory / "result", "new")
        stage.publish("result")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["data", "edgepress.json"]


@pytest.mark.parametrize("ending", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("keep", [False, True])
def test_what_a_failure_leaves(tmp_path: Path, ending: type[BaseException], keep: bool) -> None:
    with pytest.raises(ending), Staging(tmp_path / "out", keep=keep) as stage:
        (stage.directory / "work").touch()
        raise ending
    assert names(tmp_path) == ([".out.partial"] if keep else [])
    with Staging(tmp_path / "out", keep=keep) as stage:
        assert names(stage.directory) == (["work"] if keep else [])
        stage.restart()
        assert names(stage.directory) == []
    assert names(tmp_path) == []


def test_an_existing_output_is_refused_and_untouched(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    with pytest.raises(OutputExists, match="--overwrite"):
        publish(tmp_path / "out", "new")
    assert (tmp_path / "out" / "data").read_text() == "old" and names(tmp_path) == ["out"]


def test_overwrite_replaces_the_whole_directory(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    (tmp_path / "out" / "stray").touch()
    publish(tmp_path / "out", "new", overwrite=True)
    assert names(tmp_path / "out") == ["data", "edgepress.json"] and names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "data").read_text() == "new"


def test_an_empty_directory_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    publish(tmp_path / "out", "new")
    assert (tmp_path / "out" / "data").read_text() == "new"


@pytest.mark.parametrize("manifest", [None, '{"schema": "another/1"}'])
def test_overwrite_never_removes_what_edgepress_did_not_write(tmp_path: Path, manifest: str | None) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis").write_text("years")
    if manifest is not None:
        (home / "manifest.json").write_text(manifest)
    with pytest.raises(OutputExists, match="did not write"):
        publish(home, "new", overwrite=True)
    assert (home / "thesis").read_text() == "years" and names(tmp_path) == ["home"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_a_file_or_link_is_never_replaced(tmp_path: Path, kind: str, overwrite: bool) -> None:
    publish(tmp_path / "other", "other")
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("old")
    else:
        target.symlink_to(tmp_path / ("other" if kind == "link" else "nothing"))
    with pytest.raises(OutputExists, match="not a directory"):
        publish(target, "new", overwrite=overwrite)
    assert names(tmp_path) == ["other", "out"]
    assert target.is_symlink() == (kind != "file")
    assert (tmp_path / "other" / "data").read_text() == "other"


@pytest.mark.parametrize("name", ["/", "..", "a/.."])
def test_names_that_cannot_be_an_output(name: str) -> None:
    with pytest.raises(InputError, match="cannot be an output"):
        Staging(Path(name))


def test_parents_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "out", tmp_path / "file" / "below" / "out", tmp_path / ("x" * 255)):
        with pytest.raises(InputError, match="cannot write"):
            publish(target, "new")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write into a read-only directory")
def test_a_read_only_parent(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot write"):
        publish(tmp_path / "parent" / "out", "new")


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EROFS, InputError), (errno.EACCES, InputError), (errno.ENOSPC, OutOfResource)]
)
def test_a_staging_directory_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    real = Path.mkdir

    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        if self.name == ".out.partial":
            raise OSError(number, os.strerror(number))
        real(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(kind, match=os.strerror(number)):
            publish(tmp_path / "out", "new")
    assert names(tmp_path) == []
    publish(tmp_path / "out", "new")  # the lock was given back


def failing_rename(name: str, error: BaseException) -> Callable[[Path, Path], Path]:
    """``Path.rename`` that raises when it would make the path ``name``."""
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target.name == name and self.name.endswith(".partial"):
            raise error
        return real(self, target)

    return rename


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OSError(errno.ENOSPC, "full"), OutOfResource), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_what_fails_between_the_renames_puts_the_old_output_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, kind: type[BaseException]
) -> None:
    publish(tmp_path / "out", "old")
    monkeypatch.setattr(Path, "rename", failing_rename("out", error))
    with pytest.raises(kind):
        publish(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out" / "data").read_text() == "old" and names(tmp_path) == ["out"]


DIES = """
import os, sys
from pathlib import Path
from edgepress import storage
from edgepress.storage import Staging, write_json
where, target = sys.argv[1], Path(sys.argv[2])
def die(*_, **__): os._exit(9)
rename = Path.rename
if where == "between the renames":
    Path.rename = lambda self, to: rename(self, to) if to != target else die()
if where == "after publication":
    storage.shutil.rmtree = die
with Staging(target, overwrite=where != "after first publication", keep=True) as stage:
    (stage.directory / "work").mkdir(exist_ok=True)
    (stage.directory / "result").mkdir(exist_ok=True)
    (stage.directory / "result" / "data").write_text("new")
    write_json(stage.directory / "result" / "edgepress.json", {"schema": "edgepress.checkpoint/1"})
    if where == "while working": die()
    if where == "after first publication": storage.shutil.rmtree = die
    stage.publish("result")
"""


def die(where: str, target: Path) -> None:
    """Publish to ``target`` in a process that ends ``where`` it says, with nothing cleaned up."""
    done = subprocess.run([sys.executable, "-c", DIES, where, str(target)], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr


def test_a_kill_while_working_leaves_no_output_and_the_work_to_resume(tmp_path: Path) -> None:
    die("while working", tmp_path / "out")
    assert names(tmp_path) == [".out.lock", ".out.partial"]
    with Staging(tmp_path / "out", keep=True) as stage:
        assert names(stage.directory) == ["result", "work"]
        stage.publish("result")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_between_the_renames_is_recovered(tmp_path: Path, overwrite: bool) -> None:
    publish(tmp_path / "out", "old")
    die("between the renames", tmp_path / "out")
    assert names(tmp_path) == [".out.lock", ".out.partial", ".out.replaced"]
    if overwrite:
        publish(tmp_path / "out", "third", overwrite=True)
    else:
        with pytest.raises(OutputExists):
            publish(tmp_path / "out", "third")
    assert (tmp_path / "out" / "data").read_text() == ("third" if overwrite else "old")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_orphans_of_a_kill_after_publication_are_swept(tmp_path: Path, overwrite: bool) -> None:
    if overwrite:
        publish(tmp_path / "out", "old")
    die("after publication" if overwrite else "after first publication", tmp_path / "out")
    assert (tmp_path / "out" / "data").read_text() == "new"
    orphans = [".out.lock", ".out.partial", *([".out.replaced"] if overwrite else [])]
    assert names(tmp_path) == [*orphans, "out"]
    with pytest.raises(OutputExists):
        publish(tmp_path / "out", "again")
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "data").read_text() == "new"


RACES = """
import sys
from pathlib import Path
from edgepress.errors import EdgepressError
from edgepress.storage import Staging, write_json
sys.stdin.readline()
try:
    with Staging(Path(sys.argv[1])) as stage:
        print("entered", flush=True)
        sys.stdin.readline()
        (stage.directory / "data").write_text(sys.argv[2])
        write_json(stage.directory / "edgepress.json", {"schema": "edgepress.checkpoint/1"})
        stage.publish()
except EdgepressError as error:
    print(type(error).__name__, error.what, flush=True)
    sys.exit(error.exit_code)
"""


def test_of_two_processes_exactly_one_writes_an_output(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACES, str(tmp_path / "out")]
    racers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("first", "second")
    ]
    said, codes = [], []
    for racer in racers:  # both start at once; the winner waits inside until the loser has given up
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        assert racer.stdout is not None
        said.append(racer.stdout.readline())
    for racer in racers:
        racer.communicate("finish\n", timeout=60)
        codes.append(racer.returncode)
    assert sorted(codes) == [0, 2]
    winner = codes.index(0)
    assert said[winner] == "entered\n"
    assert said[1 - winner].startswith("InputError another edgepress process is writing")
    assert (tmp_path / "out" / "data").read_text() == ("first", "second")[winner]
    assert names(tmp_path) == ["out"]
