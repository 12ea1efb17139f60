"""Outputs that cannot or must not be written are refused by both verbs before anything is loaded.

The model is a directory that no loader takes, so an error about the output comes before any about the model.
"""

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.cli.entry import run
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.output_lock import MARK
from edgepress.files.storage import write_json

VERBS = {
    "compress": ["compress", "model", "--scheme", "W4A16"],
    "export": ["export", "model"],
}


def an_output(path: Path) -> None:
    path.mkdir()
    (path / "data").write_text("old")
    write_json(path / "manifest.json", {"schema": "edgepress.bundle/1", "files": hash_tree(path)})


def a_user_file(path: str, content: str = "mine") -> Callable[[], Any]:
    return lambda: Path(path).write_text(content)


def a_link(path: str, to: str) -> Callable[[], Any]:
    return lambda: Path(path).symlink_to(to)


def nothing() -> None:
    """Nothing has to be made for the case."""


# By case: the output, what is there, the code of the error and what it names.
CASES: dict[str, tuple[str, Callable[[], Any], str, str]] = {
    "the input": ("model", nothing, "E-INPUT", "is the input model"),
    "the input by its parent": ("model/../model", nothing, "E-INPUT", "is the input model"),
    "in the input": ("model/new", nothing, "E-INPUT", "inside the input model"),
    "in the input by a link": ("link/new", a_link("link", "model"), "E-INPUT", "inside the input model"),
    "around the input": (".", nothing, "E-INPUT", "holds the input model"),
    "two levels up": ("..", nothing, "E-INPUT", "holds the input model"),
    "unwritable": ("/sys/out", nothing, "E-INPUT", "cannot write"),
    "nowhere": ("/proc/out", nothing, "E-INPUT", "cannot write"),
    "a link": ("out", a_link("out", "old"), "E-EXISTS", "not a directory"),
    "a dangling link": ("out", a_link("out", "nothing"), "E-EXISTS", "not a directory"),
    "a file": ("out", a_user_file("out"), "E-EXISTS", "not a directory"),
    "below a file": ("file/out", a_user_file("file"), "E-INPUT", "cannot write"),
    "too long": ("x" * 250, nothing, "E-INPUT", "cannot write"),
    "a user's lock": ("q", a_user_file(".q.lock"), "E-EXISTS", ".q.lock is not a lock"),
    "a linked lock": ("q", a_link(".q.lock", "model/config.json"), "E-EXISTS", ".q.lock is not a lock"),
    "a linked partial": ("q", a_link(".q.partial", "old"), "E-EXISTS", ".q.partial is not a staging"),
    "a user's staging file": ("q", a_user_file(".q.partial"), "E-EXISTS", ".q.partial is not a staging"),
    "a user's file": ("old", a_user_file("old/notes.txt"), "E-EXISTS", "did not write"),
    "an edited file": ("old", a_user_file("old/data"), "E-EXISTS", "changed since"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``model``, and an ``old`` output."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("no model")
    an_output(tmp_path / "old")
    monkeypatch.chdir(tmp_path)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run([*arguments, "--json", "-q"])
    return code, json.loads(capsys.readouterr().out)["error"]


def names() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("case", CASES)
def test_a_bad_output_is_refused_and_all_stays(
    verb: str, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output, make, code, what = CASES[case]
    if output.startswith("/") and not Path(output).parent.is_dir():
        pytest.skip(f"there is no {Path(output).parent} here")
    make()
    before, found = names(), hash_tree(Path())
    exit_code, error = refused([*VERBS[verb], "-o", output, "--overwrite"], capsys)
    assert (exit_code, error["code"]) == (2, code), error
    assert what in error["what"] and error["fix"], error
    assert (names(), hash_tree(Path())) == (before, found)


@pytest.mark.parametrize("output", ["g.gguf", "model.ONNX"])
def test_a_directory_is_not_called_like_a_file(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = names()
    code, error = refused([*VERBS["compress"], "-o", output], capsys)
    assert code == 2 and "becomes a directory" in error["what"] and names() == before


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc here")
def test_a_demo_that_cannot_be_written_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = refused(["demo", "-o", "/proc/x/demo"], capsys)
    assert code == 2 and error["what"] == "cannot write /proc/x/demo"


@pytest.mark.parametrize("verb", VERBS)
def test_an_output_that_is_there_is_refused_unless_it_may_be_replaced(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*VERBS[verb], "-o", "old"]
    before = names()
    assert refused(arguments, capsys)[1]["code"] == "E-EXISTS"
    Path(".old.lock").write_bytes(MARK)
    of_the_model = refused([*arguments, "--overwrite"], capsys)[1]
    assert "config.json is not valid JSON" in of_the_model["what"]
    assert names() == before


WITHOUT_TORCH = """
import sys
from edgepress.cli.entry import run
code = run(sys.argv[1:])
assert not {"torch", "transformers", "onnx_ir"} & set(sys.modules), "loaded for a refusal"
sys.exit(code)
"""


@pytest.mark.chain
@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_loaded_for_a_refusal(verb: str) -> None:
    """What takes seconds to import is not waited for."""
    for output in ("model", "model/new", "old"):
        command = [sys.executable, "-c", WITHOUT_TORCH, *VERBS[verb], "-o", output, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and json.loads(done.stdout)["error"]["exit_code"] == 2, done.stderr


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("call", "number", "code"),
    [("mkdir", errno.ENOSPC, 6), ("mkdir", errno.EROFS, 2), ("flock", errno.ENOLCK, 2)],
)
def test_a_file_system_that_cannot_take_it(
    verb: str,
    call: str,
    number: int,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    before = names()
    with monkeypatch.context() as patch:
        patch.setattr(os if call == "mkdir" else fcntl, call, refuse)
        assert refused([*VERBS[verb], "-o", "new"], capsys)[0] == code
    assert names() == before
