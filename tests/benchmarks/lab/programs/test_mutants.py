"""The table of mutants fits the sources, and the program tells the killed from those that live."""

import json
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs.mutants import Mutant, mutants, run_tests, try_mutant

IDEAS = {
    *(
        "hash check",
        "proof thresholds",
        "publish",
        "attention mask",
        "KV length",
        "strides",
        "seeds",
        "resume",
    ),
    *("operators", "overwrite", "signature check", "finite check", "escaping", "limits"),
}


def test_every_line_is_there_once_and_every_idea_has_one() -> None:
    found = mutants()
    assert len(found) >= 40 and len({one.name for one in found}) == len(found)
    assert {one.idea for one in found} == IDEAS
    assert all(one.before.strip() != one.after.strip() for one in found)


def test_a_line_that_has_gone_ends_the_program(tmp_path: Path) -> None:
    entry = {
        "name": "gone",
        "idea": "limits",
        "file": "a.py",
        "before": "x = 1",
        "after": "",
        "tests": "t.py",
    }
    table = tmp_path / "mutants.yaml"
    table.write_text(json.dumps([entry]))
    for source, count in (("", 0), ("x = 1\nx = 1\n", 2)):
        (tmp_path / "a.py").write_text(source)
        with pytest.raises(SystemExit, match=f"gone: a.py has this {count} times: 'x = 1'"):
            mutants(table, tmp_path)
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(SystemExit, match=r"there is no t\.py"):
        mutants(table, tmp_path)
    (tmp_path / "t.py").touch()
    assert [one.name for one in mutants(table, tmp_path)] == ["gone"]


@pytest.mark.chain
def test_killed_lived_and_broken(tmp_path: Path) -> None:
    tree = tmp_path / "edgepress"
    tree.mkdir()
    (tree / "__init__.py").touch()
    (tree / "a.py").write_text("def half(x):\n    return x / 2\n")
    test = "from edgepress.a import half\ndef test_half():\n    assert half(0) == 0 and half(4) == 2\n"
    (tree / "test_a.py").write_text(test)
    assert run_tests(tree, ["test_a.py"])[0] == 0

    def outcome(after: str) -> str:
        made = Mutant("one", "limits", "a.py", "return x / 2", after, ("test_a.py",))
        return try_mutant(tree, made)

    assert outcome("return x / 3") == "test_a.py::test_half"
    assert outcome("return x - 2 if x else 0") == ""
    with pytest.raises(SystemExit, match="could not run"):
        outcome("return (")
    assert (tree / "a.py").read_text() == "def half(x):\n    return x / 2\n"
