"""Paths that a user names for output, held against what is there before any work: the inputs, and files that
are not edgepress's to replace.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError, OutputExists


def refuse_nesting(
    output: Path, inputs: Iterable[str | Path | None], *, kept: Iterable[str | Path | None] = ()
) -> None:
    """Raise InputError where the directory ``output`` is one of ``inputs``, lies inside one, or holds one;
    links are followed. Names that are no paths here (of a demo model, of a packaged recipe) pass.

    Args:
        kept: directories that a run adds to, and that only must not be in the output.
    """
    for path, read in [*((one, True) for one in inputs), *((one, False) for one in kept)]:
        if path is None:
            continue
        found = Path(os.path.expanduser(path))  # noqa: PTH111 - Path's raises where there is no such user
        if _inside(found, output):
            lies = "is" if _inside(output, found) else "holds"
            raise _nested(f"the output {output} {lies} the input {path}", "an output is replaced as a whole")
        if read and _inside(output, found):
            raise _nested(f"the output {output} lies inside the input {path}", "an input stays as it is")


def _nested(what: str, why: str) -> InputError:
    return InputError(what, why=why, fix="choose another output")


def _inside(path: Path, directory: Path) -> bool:
    """Whether ``path``, which need not exist, is ``directory`` or lies in it."""
    if not directory.exists():
        return False
    real = Path(os.path.realpath(path))
    return any(one.exists() and one.samefile(directory) for one in (real, *real.parents))


def refuse_file(output: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Check that the file ``output`` may be written."""
    if output.is_symlink() or (output.exists() and not output.is_file()):
        kind = "a link" if output.is_symlink() else "a directory" if output.is_dir() else "no regular file"
        raise OutputExists(f"{output} is {kind}, and stays as it is", fix="name a file that can be made")
    if output.exists() and not overwrite:
        raise OutputExists(f"{output} already exists", fix="pass --overwrite, or choose another output")
    for path in inputs:
        if _inside(output, path):
            raise _nested(f"the output {output} is, or lies inside, the input {path}", "")
