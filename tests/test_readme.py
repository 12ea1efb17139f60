"""The README is short, and held to the code: its commands, its Python names and its links exist."""

import re
import shlex
from pathlib import Path

import edgepress
from edgepress.cli.verb import VERBS

ROOT = Path(edgepress.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_every_command_line_names_a_verb() -> None:
    said = [
        *re.findall(r"`(edgepress [^`]+)`", README),
        *re.findall(r"^\$ (edgepress .*)$", README, flags=re.M),
    ]
    assert len(said) >= 8
    for line in said:
        assert shlex.split(line, comments=True)[1] in VERBS


def test_the_python_example_uses_the_public_api() -> None:
    names = set(re.findall(r"edgepress\.(\w+)\(", README))
    assert names and names <= set(edgepress.__all__)


def test_files_that_the_page_shows_exist() -> None:
    for target in re.findall(r"\]\(((?!http)[^)#]+)[)#]", README):
        assert (ROOT / target).exists(), target
