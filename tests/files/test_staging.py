"""Outputs appear whole or not at all whatever ends a run: an error, a full disk, a kill, another process."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from edgepress.errors import InputError, OutOfResource, OutputExists, RefusedByPolicy
from edgepress.files.hashed_tree import SIGNATURE, hash_tree
from edgepress.files.staging import MARK, PUBLISHING, Staging
from edgepress.files.storage import write_json

NOBODY = 65_534


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def result(path: Path, text: str) -> None:
    """What a run writes: a file, and last the manifest that makes the directory a result of ours."""
    path.mkdir(exist_ok=True)
    (path / "data").write_text(text)
    write_json(path / "edgepress.json", {"schema": "edgepress.checkpoint/1", "files": hash_tree(path)})


def publish(target: Path, text: str, *, overwrite: bool = False) -> None:
    with Staging(target, overwrite=overwrite) as stage:
        result(stage.result, text)
        stage.publish()


def finished(staging: Path) -> bool:
    """What a caller that resumes says: whether there is something to resume."""
    return (staging / "finished").exists()


def test_a_result_appears_as_the_last_act(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with Staging(target) as stage:
        result(stage.result, "new")
        assert not target.exists()
        stage.publish()
    assert (target / "data").read_text() == "new"
    assert names(target.parent) == ["out"]


def test_what_the_work_needed_beside_the_result_goes(tmp_path: Path) -> None:
    with Staging(tmp_path / "out", keep=finished) as stage:
        (stage.directory / "finished").mkdir()
        result(stage.result, "new")
        stage.publish()
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["data", "edgepress.json"]


@pytest.mark.parametrize("ending", [RuntimeError, KeyboardInterrupt, InputError])
@pytest.mark.parametrize("keep", [None, finished])
@pytest.mark.parametrize("work", ["finished", "begun"])
def test_what_a_failure_leaves(tmp_path: Path, ending: type[BaseException], keep: Any, work: str) -> None:
    """Only what a resumed run would find."""
    kept = work == "finished" and keep is not None
    with pytest.raises(ending), Staging(tmp_path / "out", keep=keep) as stage:
        (stage.directory / work).touch()
        raise ending("this")
    assert names(tmp_path) == ([".out.partial"] if kept else [])
    with Staging(tmp_path / "out", keep=keep) as stage:
        assert names(stage.directory) == [MARK, *([work] if kept else [])]
        stage.restart()
        assert names(stage.directory) == [MARK]
    assert names(tmp_path) == []


def test_an_existing_output_is_refused_and_untouched(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    with pytest.raises(OutputExists, match="--overwrite"):
        publish(tmp_path / "out", "new")
    assert (tmp_path / "out" / "data").read_text() == "old" and names(tmp_path) == ["out"]


def test_somebody_elses_directory_is_named_as_such(tmp_path: Path) -> None:
    """``--overwrite`` would not replace it, and is no way out."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputExists, match="already exists") as caught:
        publish(tmp_path / "out", "new")
    assert "thesis.tex, which edgepress did not write" in caught.value.why
    assert caught.value.fix.startswith("choose another output")


def test_overwrite_replaces_what_an_earlier_run_wrote(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    publish(tmp_path / "out", "new", overwrite=True)
    assert names(tmp_path / "out") == ["data", "edgepress.json"] and names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "data").read_text() == "new"


def test_the_signature_of_an_old_output_goes_with_it(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    (tmp_path / "out" / SIGNATURE).write_text("{}")
    publish(tmp_path / "out", "new", overwrite=True)
    assert SIGNATURE not in names(tmp_path / "out")


def test_an_empty_directory_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    publish(tmp_path / "out", "new")
    assert (tmp_path / "out" / "data").read_text() == "new"


def everything(folder: Path) -> dict[str, Any]:
    """Every name below ``folder``, with the bytes of files and the targets of links."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        kind = path.read_bytes if path.is_file() else path.lstat().st_mode.__int__
        found[path.relative_to(folder).as_posix()] = path.readlink() if path.is_symlink() else kind()
    return found


def place(path: Path, kind: str) -> None:
    """Something of a user's at ``path``."""
    if kind == "directory":
        path.mkdir()
        (path / "thesis").write_text("years")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("elsewhere")
        path.with_name("elsewhere").mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.write_text(kind)


@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo", "socket"])
@pytest.mark.parametrize("when", ["before", "during"])
def test_what_a_user_put_into_an_output_refuses_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, when: str
) -> None:
    publish(tmp_path / "out", "old")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    target = Path("out")
    if when == "before":
        place(target / "notes", kind)
        before = everything(tmp_path)
    with (
        pytest.raises(OutputExists, match="did not write") as caught,
        Staging(target, overwrite=True) as stage,
    ):
        result(stage.result, "new")
        place(target / "notes", kind)
        before = {f"out/{name}": found for name, found in everything(target).items()}
        stage.publish()
    assert "'notes'" in caught.value.why
    found = everything(tmp_path)
    assert found.pop("out") is not None
    before.pop("out", None)
    assert found == before


def test_a_file_that_was_edited_refuses_and_stays(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    data = tmp_path / "out" / "data"
    times = data.stat()
    data.write_text("odd")
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(OutputExists) as caught:
        publish(tmp_path / "out", "new", overwrite=True)
    assert "data (changed since" in caught.value.why
    assert data.read_text() == "odd" and names(tmp_path) == ["out"]


def test_a_file_that_is_edited_during_the_work_stays(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    with pytest.raises(OutputExists, match="changed"), Staging(tmp_path / "out", overwrite=True) as stage:
        result(stage.result, "new")
        (tmp_path / "out" / "data").write_text("edited")
        stage.publish()
    assert (tmp_path / "out" / "data").read_text() == "edited" and names(tmp_path) == ["out"]


def test_a_file_of_the_old_output_that_is_gone_is_no_loss(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    (tmp_path / "out" / "data").unlink()
    publish(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out" / "data").read_text() == "new"


@pytest.mark.parametrize("made", ["directory", "file"])
def test_an_output_that_somebody_makes_during_the_work_is_not_replaced(tmp_path: Path, made: str) -> None:
    with pytest.raises(OutputExists), Staging(tmp_path / "out") as stage:
        result(stage.result, "new")
        place(tmp_path / "out", made)
        stage.publish()
    assert names(tmp_path) == ["out"]
    kept = tmp_path / "out" if made == "file" else tmp_path / "out" / "thesis"
    assert kept.read_text() == ("file" if made == "file" else "years")


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


@pytest.fixture
def folder_of_a_user(tmp_path: Path) -> Iterator[Path]:
    """A folder of this user's. Root may write anywhere: where tests run as root, this one does as nobody."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory() as name:  # pytest's own are below one of root's alone
        os.chown(name, NOBODY, -1)
        os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_read_only_parent(folder_of_a_user: Path) -> None:
    parent = folder_of_a_user / "parent"
    publish(parent / "out", "old")
    parent.chmod(0o500)
    with pytest.raises(InputError, match="cannot write"):
        publish(parent / "new", "new")
    parent.chmod(0o700)
    assert names(parent) == ["out"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *[(errno.EROFS, InputError), (errno.EACCES, InputError)],
        *[(errno.ENOSPC, OutOfResource), (errno.EIO, OutOfResource)],
    ],
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
        (OSError(errno.EIO, "Input/output error"), OutOfResource),
        (OSError(errno.EROFS, "Read-only file system"), InputError),
        (OSError(errno.EACCES, "the model cannot be read"), OSError),
        (RuntimeError("I/O error: Permission denied (os error 13)"), RuntimeError),
    ],
)
@pytest.mark.parametrize("keep", [None, finished])
def test_a_disk_that_fills_up_during_the_work(
    tmp_path: Path, error: Exception, kind: type[Exception], keep: Any
) -> None:
    """By Python's writes and by those of native code, which says the number in words."""
    with pytest.raises(kind) as caught, Staging(tmp_path / "out", keep=keep) as stage:
        (stage.directory / "finished").touch()
        raise error
    assert caught.value is error or caught.value.__cause__ is error
    assert names(tmp_path) == ([".out.partial"] if keep else [])


def failing_rename(name: str, error: BaseException) -> Callable[[Path, Path], Path]:
    """``Path.rename`` that raises when the result would get the name ``name``."""
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target.name == name and self.name == "result":
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


def test_the_disk_has_a_result_before_its_name_and_the_name_before_the_old_output_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut after any of these leaves is the old output, the new one, or what is put back."""
    publish(tmp_path / "out", "old")
    seen: list[str] = []
    rename, rmtree = Path.rename, shutil.rmtree

    def renamed(self: Path, to: Path) -> Path:
        seen.append(f"{self.name} becomes {to.name}")
        return rename(self, to)

    def removed(path: Path) -> None:
        seen.append(f"{path.name} is removed")
        rmtree(path)

    with Staging(tmp_path / "out", overwrite=True) as stage:
        result(stage.result, "new")
        known = {path.stat().st_ino: path.name for path in (tmp_path, *tmp_path.rglob("*"))}
        monkeypatch.setattr(os, "fsync", lambda handle: seen.append(known[os.fstat(handle).st_ino]))
        monkeypatch.setattr(Path, "rename", renamed)
        monkeypatch.setattr(shutil, "rmtree", removed)
        stage.publish()
    assert sorted(seen[:2]) == ["data", "edgepress.json"]
    assert seen[2:] == [
        *("result", f"{MARK} becomes {PUBLISHING}", ".out.partial", "out becomes replaced"),
        *("result becomes out", tmp_path.name, "replaced is removed"),
    ]


@pytest.mark.parametrize("old", [False, True])
def test_a_disk_that_fails_at_any_wait_of_a_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """There is what was there before, and what a resumed run needs; the same command then succeeds."""
    for passed in range(5):
        target = tmp_path / str(passed) / "out"
        if old:
            publish(target, "old")
        waits = iter(range(5))

        def fail(_: int, waits: Iterator[int] = waits, passed: int = passed) -> None:
            if next(waits) == passed:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with (
            monkeypatch.context() as patch,
            pytest.raises(OutOfResource, match="disk fails"),
            Staging(target, overwrite=True, keep=lambda staging: (staging / "result").exists()) as stage,
        ):
            result(stage.result, "new")
            patch.setattr(os, "fsync", fail)
            stage.publish()
        assert names(target.parent) == [".out.partial", *(["out"] if old else [])]
        assert not old or (target / "data").read_text() == "old"
        with Staging(target, overwrite=True, keep=finished) as stage:
            assert (stage.result / "data").read_text() == "new"
            stage.publish()
        assert (target / "data").read_text() == "new" and names(target.parent) == ["out"]


DIES = """
import os, sys
from pathlib import Path
from edgepress.files import staging
from edgepress.files.staging import Staging
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import write_json
where, target = sys.argv[1], Path(sys.argv[2])
def die(*_, **__): os._exit(9)
rename = Path.rename
if where == "between the renames":
    Path.rename = lambda self, to: rename(self, to) if to != target else die()
if where == "after publication":
    staging.shutil.rmtree = die
with Staging(target, overwrite=where != "after first publication", keep=lambda _: True) as stage:
    (stage.directory / "work").mkdir(exist_ok=True)
    stage.result.mkdir(exist_ok=True)
    (stage.result / "data").write_text("new")
    files = hash_tree(stage.result)
    write_json(stage.result / "edgepress.json", {"schema": "edgepress.checkpoint/1", "files": files})
    if where == "while working": die()
    if where == "after first publication": staging.shutil.rmtree = die
    stage.publish()
"""


def die(where: str, target: Path) -> None:
    """Publish to ``target`` in a process that ends ``where`` it says, with nothing cleaned up."""
    done = subprocess.run([sys.executable, "-c", DIES, where, str(target)], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr


@pytest.mark.chain
def test_a_kill_while_working_leaves_no_output_and_the_work_to_resume(tmp_path: Path) -> None:
    die("while working", tmp_path / "out")
    assert names(tmp_path) == [".out.lock", ".out.partial"]
    with Staging(tmp_path / "out", keep=finished) as stage:
        assert names(stage.directory) == [MARK, "result", "work"]
        stage.publish()
    assert names(tmp_path) == ["out"]


@pytest.mark.chain
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_between_the_renames_is_recovered(tmp_path: Path, overwrite: bool) -> None:
    publish(tmp_path / "out", "old")
    die("between the renames", tmp_path / "out")
    assert names(tmp_path) == [".out.lock", ".out.partial"]
    if overwrite:
        publish(tmp_path / "out", "third", overwrite=True)
    else:
        with pytest.raises(OutputExists):
            publish(tmp_path / "out", "third")
    assert (tmp_path / "out" / "data").read_text() == ("third" if overwrite else "old")
    assert names(tmp_path) == ["out"]


@pytest.mark.chain
def test_an_old_output_that_was_not_put_back_stays_when_a_new_one_is_made(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    die("between the renames", tmp_path / "out")
    shutil.copytree(tmp_path / ".out.partial" / "replaced", tmp_path / "out")
    before = everything(tmp_path / ".out.partial" / "replaced")
    with pytest.raises(OutputExists, match="was to be replaced"):
        publish(tmp_path / "out", "third", overwrite=True)
    assert everything(tmp_path / ".out.partial" / "replaced") == before
    shutil.rmtree(tmp_path / "out")
    publish(tmp_path / "out", "third", overwrite=True)
    assert names(tmp_path) == ["out"]


@pytest.mark.chain
@pytest.mark.parametrize("overwrite", [False, True])
def test_orphans_of_a_kill_after_publication_are_swept(tmp_path: Path, overwrite: bool) -> None:
    if overwrite:
        publish(tmp_path / "out", "old")
    die("after publication" if overwrite else "after first publication", tmp_path / "out")
    assert (tmp_path / "out" / "data").read_text() == "new"
    assert names(tmp_path) == [".out.lock", ".out.partial", "out"]
    with pytest.raises(OutputExists):
        publish(tmp_path / "out", "again")
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "data").read_text() == "new"


RACES = """
import sys
from pathlib import Path
from edgepress.errors import EdgepressError
from edgepress.files.staging import Staging
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import write_json
sys.stdin.readline()
try:
    with Staging(Path(sys.argv[1])) as stage:
        print("entered", flush=True)
        sys.stdin.readline()
        stage.result.mkdir()
        (stage.result / "data").write_text(sys.argv[2])
        files = hash_tree(stage.result)
        write_json(stage.result / "edgepress.json", {"schema": "edgepress.checkpoint/1", "files": files})
        stage.publish()
except EdgepressError as error:
    print(type(error).__name__, error.what, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.mark.chain
@pytest.mark.parametrize("attempt", range(2))
def test_of_eight_processes_exactly_one_writes_an_output(tmp_path: Path, attempt: int) -> None:
    command = [sys.executable, "-c", RACES, str(tmp_path / "out")]
    racers = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(8)
    ]
    said, codes = [], []
    for racer in racers:  # all start at once; the winner waits inside until the others have given up
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        assert racer.stdout is not None
        said.append(racer.stdout.readline())
    for racer in racers:
        racer.communicate("finish\n", timeout=60)
        codes.append(racer.returncode)
    assert sorted(codes) == [0] + [2] * 7
    winner = codes.index(0)
    assert said.pop(winner) == "entered\n"
    assert all(line.startswith("OutputBusy another edgepress process is writing") for line in said)
    assert (tmp_path / "out" / "data").read_text() == str(winner)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo"])
def test_what_a_user_has_in_the_place_of_the_staging_directory_stays(tmp_path: Path, kind: str) -> None:
    place(tmp_path / ".out.partial", kind)
    before = everything(tmp_path)
    with pytest.raises(OutputExists, match=r"\.out\.partial is not a staging directory"):
        publish(tmp_path / "out", "new")
    assert everything(tmp_path) == before


def test_what_could_not_be_swept_is_known_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("edgepress.files.staging.shutil.rmtree", refuse)
        with Staging(tmp_path / "out") as stage:
            stage.result.mkdir()
    assert names(tmp_path / ".out.partial") == [MARK, "result"]
    publish(tmp_path / "out", "new")
    assert names(tmp_path) == ["out"]


def test_an_overwrite_is_resumed_even_if_overwrite_was_forgotten_once(tmp_path: Path) -> None:
    publish(tmp_path / "out", "old")
    with pytest.raises(KeyboardInterrupt), Staging(tmp_path / "out", overwrite=True, keep=finished) as stage:
        (stage.directory / "finished").touch()
        raise KeyboardInterrupt
    with pytest.raises(OutputExists), Staging(tmp_path / "out", keep=finished):
        pass
    with Staging(tmp_path / "out", overwrite=True, keep=finished) as stage:
        assert (stage.directory / "finished").exists()


def test_a_mount_point_is_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "out")
    with pytest.raises(InputError, match="mount point"):
        publish(tmp_path / "out", "new")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("said", ["DefaultCPUAllocator: can't allocate memory", "std::bad_alloc"])
def test_a_shortage_of_memory_in_the_work_is_typed(tmp_path: Path, said: str) -> None:
    with pytest.raises(OutOfResource, match="out of memory"), Staging(tmp_path / "o"):
        raise RuntimeError(said)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", ["result", "result/data", "work", "edgepress-staging", "work/deep/x"])
@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "dangling link", "hard link", "fifo"])
@pytest.mark.parametrize("keep", [None, finished])
def test_nothing_that_leads_out_of_a_staging_directory_is_written_through(
    name: str, kind: str, keep: Any, tmp_path: Path
) -> None:
    victim = tmp_path / "victims"
    victim.mkdir()
    (victim / "data").write_text("mine")
    staging = tmp_path / "out" / ".out.partial"
    planted = staging / name
    planted.parent.mkdir(parents=True)
    (staging / MARK if name != MARK else staging / PUBLISHING).touch()
    if kind == "hard link":
        planted.hardlink_to(victim / "data")
    elif kind == "fifo":
        os.mkfifo(planted)
    else:
        target = {"link to a file": "data", "link to a folder": ".", "dangling link": "new"}[kind]
        planted.symlink_to(victim / target)
    before = everything(victim)
    refused = pytest.raises(RefusedByPolicy, match="leads out of a staging directory")
    with refused, Staging(tmp_path / "out" / "out", keep=keep) as stage:
        result(stage.result, "new")
        stage.publish()
    assert everything(victim) == before and names(tmp_path / "out") == [".out.partial"]


def test_nobody_else_can_enter_a_staging_directory(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for _ in range(2):  # a new one, and one that an earlier run left open
            with suppress(KeyboardInterrupt), Staging(tmp_path / "out", keep=lambda path: True) as stage:
                assert stage.directory.stat().st_mode & 0o777 == 0o700
                stage.directory.chmod(0o777)
                raise KeyboardInterrupt
    finally:
        os.umask(before)


def test_shards_that_are_hard_links_of_parts_are_resumed(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), Staging(tmp_path / "out", keep=lambda path: True) as stage:
        (stage.directory / "part").write_text("x")
        stage.result.mkdir()
        (stage.result / "shard").hardlink_to(stage.directory / "part")
        raise KeyboardInterrupt
    with Staging(tmp_path / "out", keep=lambda path: True) as stage:
        assert (stage.result / "shard").read_text() == "x"


def test_a_lock_that_is_another_name_of_a_file_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    (tmp_path / ".out.lock").hardlink_to(tmp_path / "mine")
    with pytest.raises(OutputExists, match="is not a lock"):
        publish(tmp_path / "out", "new")
    assert (tmp_path / "mine").read_bytes() == b""
