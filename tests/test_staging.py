"""Outputs appear whole or not at all whatever ends a run: an error, a full disk, a kill, another process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.errors import InputError, OutOfResource, OutputExists
from edgepress.staging import Staging
from edgepress.storage import write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutOfResource),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            OutOfResource,
        ),
        (OSError(errno.EACCES, "the model cannot be read"), OSError),
        (RuntimeError("I/O error: Permission denied (os error 13)"), RuntimeError),
    ],
)
@pytest.mark.parametrize("keep", [False, True])
def test_a_disk_that_fills_up_during_the_work(
    tmp_path: Path, error: Exception, kind: type[Exception], keep: bool
) -> None:
    """By Python's writes and by those of native code, which says the number in words."""
    with pytest.raises(kind) as caught, Staging(tmp_path / "out", keep=keep) as stage:
        (stage.directory / "finished").touch()
        raise error
    assert caught.value is error or caught.value.__cause__ is error
    assert names(tmp_path) == ([".out.partial"] if keep else [])


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
from edgepress import staging
from edgepress.staging import Staging
from edgepress.storage import write_json
where, target = sys.argv[1], Path(sys.argv[2])
def die(*_, **__): os._exit(9)
rename = Path.rename
if where == "between the renames":
    Path.rename = lambda self, to: rename(self, to) if to != target else die()
if where == "after publication":
    staging.shutil.rmtree = die
with Staging(target, overwrite=where != "after first publication", keep=True) as stage:
    (stage.directory / "work").mkdir(exist_ok=True)
    (stage.directory / "result").mkdir(exist_ok=True)
    (stage.directory / "result" / "data").write_text("new")
    write_json(stage.directory / "result" / "edgepress.json", {"schema": "edgepress.checkpoint/1"})
    if where == "while working": die()
    if where == "after first publication": staging.shutil.rmtree = die
    stage.publish("result")
"""


def die(where: str, target: Path) -> None:
    """Publish to ``target`` in a process that ends ``where`` it says, with nothing cleaned up."""
    done = subprocess.run([sys.executable, "-c", DIES, where, str(target)], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr


@pytest.mark.chain
def test_a_kill_while_working_leaves_no_output_and_the_work_to_resume(tmp_path: Path) -> None:
    die("while working", tmp_path / "out")
    assert names(tmp_path) == [".out.lock", ".out.partial"]
    with Staging(tmp_path / "out", keep=True) as stage:
        assert names(stage.directory) == ["result", "work"]
        stage.publish("result")
    assert names(tmp_path) == ["out"]


@pytest.mark.chain
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


@pytest.mark.chain
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
from edgepress.staging import Staging
from edgepress.storage import write_json
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


@pytest.mark.chain
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
    assert said[1 - winner].startswith("OutputBusy another edgepress process is writing")
    assert (tmp_path / "out" / "data").read_text() == ("first", "second")[winner]
    assert names(tmp_path) == ["out"]
