"""A page of results: sections, each a Markdown table with the command, machine, versions and date behind it.

A section that is written takes the place of the one with its heading; the others stay as they are. What
people say of a section stands under its heading in a file of the page's name in ``notes/``, and comes
after the notes that the program makes.
"""

import datetime
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ....devices.probe import probe
from ....files.storage import write_atomic

PACKAGES = ("edgepress", "torch", "transformers", "compressed-tensors", "onnxruntime", "numpy")
_HEADING = re.compile(r"^(?=## )", flags=re.M)


def versions() -> str:
    """``name version`` of the packages that decide a result."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """This machine in a line."""
    here = probe()
    cpu = here.cpu
    return f"{cpu.model}, {cpu.logical} logical CPUs, {here.memory.total / 2**30:.0f} GiB, {here.os}"


def write_table(
    path: Path,
    title: str,
    command: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    *,
    page: str = "",
    measured_on: str = "",
) -> None:
    """Write a section, ``notes`` below its table, one a line; the file is written whole or not at all.

    ``page`` is what the page is called where it is new: by default as its first section. ``measured_on`` is
    the machine of figures that were kept: by default this one.
    """
    lines = [
        f"## {title}",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(f"- {note}" for note in notes),
        *_written_by_hand(path.parent / "notes" / path.name, title),
        f"- Command: `{command}`",
        f"- Machine: {measured_on or machine()}",
        f"- Versions: {versions()}",
        f"- Date: {datetime.datetime.now(datetime.UTC).date().isoformat()}",
    ]
    put_section(path, page or title, title, "\n".join(lines))


def _written_by_hand(path: Path, title: str) -> list[str]:
    sections = _HEADING.split(path.read_text(encoding="utf-8")) if path.exists() else []
    return [one.partition("\n")[2].strip() for one in sections if one.startswith(f"## {title}\n")]


def put_section(path: Path, page: str, title: str, text: str) -> None:
    """Put ``text``, which begins with the heading ``## title``, on the page ``path``."""
    head, *sections = _HEADING.split(path.read_text(encoding="utf-8") if path.exists() else f"# {page}")
    found = [index for index, one in enumerate(sections) if one.startswith(f"## {title}\n")]
    if found:
        sections[found[0]] = text
    else:
        sections.append(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "\n".join(one.strip("\n") + "\n" for one in (head, *sections)).encode())
