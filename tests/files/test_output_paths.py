"""Outputs against inputs, and files that are not edgepress's to replace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from edgepress.errors import InputError, OutputExists
from edgepress.files.output_paths import refuse_file, refuse_nesting


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``model`` and ``text`` as inputs, and ``link`` to the directory that has them all."""
    for folder in ("model/below", "text", "other"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "text" / "a.txt").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ("model", "is the input"),
        ("other/../model", "is the input"),
        ("link/model", "is the input"),
        ("link/link/model/below/..", "is the input"),
        (".", "holds the input"),
        ("text/a.txt", "is the input"),
        ("model/new", "inside the input"),
        ("model/below/new/deeper", "inside the input"),
        ("link/model/new", "inside the input"),
        ("other/../text/../model/new", "inside the input"),
    ],
)
def test_nested_paths_are_refused(house: Path, output: str, named: str) -> None:
    for inputs in (["model", "text/a.txt"], [house / "model", "link/text/a.txt"]):
        with pytest.raises(InputError, match=named):
            refuse_nesting(Path(output), inputs)
        with pytest.raises(InputError, match=named):
            refuse_nesting(house / output, inputs)


@pytest.mark.parametrize("output", ["new", "other", "other/new", "model-2", "text/a.txt.d", "mode"])
def test_others_pass(house: Path, output: str) -> None:
    refuse_nesting(Path(output), ["model", house / "text" / "a.txt", None, "a demo model"])


def test_what_a_run_adds_to_may_have_the_output_beside(house: Path) -> None:
    refuse_nesting(Path("model/new"), [], kept=["model"])
    for output in ("model", "."):
        with pytest.raises(InputError):
            refuse_nesting(Path(output), [], kept=["model/below"])


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["directory", "link", "dangling link", "fifo"])
def test_what_is_no_file_stays(house: Path, kind: str, overwrite: bool) -> None:
    path = house / "page"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("text/a.txt" if kind == "link" else "nothing")
    with pytest.raises(OutputExists, match="stays as it is"):
        refuse_file(path, overwrite=overwrite)
    assert (house / "text" / "a.txt").read_text() == "text"


def test_a_file_is_replaced_on_request_and_an_input_never(house: Path) -> None:
    page = house / "page"
    refuse_file(page, overwrite=False)
    page.touch()
    refuse_file(page, overwrite=True, inputs=[house / "text"])
    with pytest.raises(OutputExists, match="--overwrite"):
        refuse_file(page, overwrite=False)
    for path in ("text/a.txt", "link/text/a.txt", "text/new"):
        with pytest.raises(InputError, match="input"):
            refuse_file(Path(path), overwrite=True, inputs=[house / "text"])
