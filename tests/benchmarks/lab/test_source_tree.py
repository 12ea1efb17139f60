"""The figures of a source tree, on one made for it."""

import subprocess
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.source_tree import arrows, picture, sources

pytestmark = pytest.mark.chain


FILES = {
    "floor/__init__.py": "",
    "floor/front.py": "from .room import low\n\ndef f():\n    from .room.low import X\n",
    "floor/room/__init__.py": "",
    "floor/room/low.py": "from . import lowest\nX = 1\n",
    "floor/room/lowest.py": "import json\n",
    "tests/test_low.py": "from ..floor import front\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in (["git", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path


def test_sources_leave_tests_out(checkout: Path) -> None:
    assert set(sources(checkout)) == {name for name in FILES if not name.startswith("tests/")}


def test_arrows_name_modules_and_what_functions_import(checkout: Path) -> None:
    assert arrows(checkout) == {
        ("floor/front.py", "floor/room/low.py"): 2,
        ("floor/room/low.py", "floor/room/lowest.py"): 1,
    }


def test_the_picture_shows_rooms_and_imports_between_them(checkout: Path) -> None:
    drawn = picture(checkout, "floor")
    assert '"front" -> "room" [label="2"]' in drawn
    assert '"room" [label="room\\n2"]' in drawn
    assert "lowest" not in drawn
