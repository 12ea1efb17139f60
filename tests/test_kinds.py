"""How many lines of the product ask of which kind a model is: a ceiling that only falls."""

import ast
from collections.abc import Iterator
from pathlib import Path

import edgepress
import pytest

ROOT = Path(edgepress.__file__).parent
ROOMS = ("benchmarks", "cli", "compress", "devices", "export", "fit", "runtime")
# Values and attributes that say which kind a model, a bundle or a piece of work is of.
VALUES = {"decoder", "encoder", "encoder_decoder"}
ATTRIBUTES = {
    *("hearing", "patches", "hears", "reads_images", "encoder_decoder", "crosses", "paired"),
    *("both_look_up", "labels_texts"),
}
ASKING_LINES, DICTIONARIES = 249, 26  # lower them in the commit that takes some away


def says_kind(node: ast.AST) -> bool:
    """Whether an expression compares with a kind's value, or reads an attribute that tells kinds apart."""
    return any(
        (isinstance(part, ast.Attribute) and part.attr in ATTRIBUTES)
        or (isinstance(part, ast.Compare) and any(is_value(side) for side in ast.walk(part)))
        for part in ast.walk(node)
    )


def is_value(node: ast.AST | None) -> bool:
    """Whether an expression is the name of a kind."""
    return isinstance(node, ast.Constant) and node.value in VALUES


def asked(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions of a node that decide something."""
    if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
        yield node.test
    elif isinstance(node, ast.comprehension):
        yield from node.ifs
    elif isinstance(node, ast.Compare | ast.BoolOp):
        yield node


def asking_lines(tree: ast.AST) -> set[int]:
    """Lines that test a kind, each once."""
    return {test.lineno for node in ast.walk(tree) for test in asked(node) if says_kind(test)}


def dictionaries(tree: ast.AST) -> int:
    """Dictionaries with two or more kinds for keys."""
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Dict))
    return sum(sum(is_value(key) for key in node.keys) >= 2 for node in found)


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("if anatomy.kind == 'encoder': pass", 1),
        ("x = 1 if a.hearing is None else 2", 1),
        ("[a for a in b if a.patches]", 1),
        ("other = a.kind != 'decoder'", 1),
        ("heard = a.hearing", 0),
        ("if a.name == 'other': pass", 0),
    ],
)
def test_what_counts(code: str, lines: int) -> None:
    assert len(asking_lines(ast.parse(code))) == lines


def test_a_dictionary_has_two_kinds() -> None:
    assert dictionaries(ast.parse("{'encoder': 1, 'decoder': 2}, {'encoder': 1}")) == 1


def test_the_ceilings_only_fall() -> None:
    """Of all product files, those of one kind too; the lab is no product."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if "lab" not in path.parts]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    assert 0 < sum(len(asking_lines(tree)) for tree in trees) <= ASKING_LINES
    assert sum(map(dictionaries, trees)) <= DICTIONARIES
