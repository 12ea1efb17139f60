"""Hostile and ordinary YAML through the loader that recipes and targets share."""

import json

import pytest
from edgepress.errors import InputError
from edgepress.files.yaml_safe import MAX_BYTES, MAX_DEPTH, load_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.chain


def test_core_schema_scalars() -> None:
    text = "{a: 1, b: 1e-4, c: 2.5, d: true, e: ~, f: no, on: off, g: 2024-01-02, h: 010, i: 1_0, j: '7'}"
    assert load_yaml(text, source="t") == {
        "a": 1,
        "b": 1e-4,
        "c": 2.5,
        "d": True,
        "e": None,
        "f": "no",
        "on": "off",
        "g": "2024-01-02",
        "h": "010",
        "i": "1_0",
        "j": "7",
    }


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_empty_is_none(text: str) -> None:
    assert load_yaml(text, source="t") is None


def test_a_few_aliases_are_fine() -> None:
    assert load_yaml("a: &x [1, 2]\nb: *x\n", source="t") == {"a": [1, 2], "b": [1, 2]}


# YAML escapes are code points, not JSON's UTF-16 pairs: the two agree on the basic plane. A key has at most
# 1024 characters, escapes included.
basic_plane = st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])
words = st.text(basic_plane, max_size=20).filter(lambda word: word != "<<")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(words, children, max_size=3),
    max_leaves=12,
)


@settings(deadline=None)
@given(values)
def test_json_is_read_as_json(value: object) -> None:
    # JSON is YAML: an escaped JSON text must give the same value as the json module.
    text = json.dumps(value)
    assert load_yaml(text, source="t") == json.loads(text)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 5)}]\n" for i in range(1, 9)
)

HOSTILE = {
    "python tag": "a: !!python/object/apply:os.system ['true']",
    "function tag": "a: !function f.g",
    "standard tag": "a: !!str 1",
    "tagged mapping": "!thing {a: 1}",
    "alias bomb": BOMB,
    "many anchors": "\n".join(f"k{i}: &n{i} 1" for i in range(51)),
    "cycle": "a: &a [*a]",
    "duplicate key": "a: 1\nb: 2\na: 3",
    "nested duplicate": "x:\n  - {a: 1, a: 2}",
    "integer key": "1: a",
    "boolean key": "true: a",
    "null key": "~: a",
    "sequence key": "? [1]\n: a",
    "merge key": "a: &a {x: 1}\nb: {<<: *a}",
    "two documents": "a: 1\n---\nb: 2",
    "deep flow": "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
    "very deep": "[" * 100_000,
    "too large": "a: " + "x" * MAX_BYTES,
    "undefined alias": "a: *nothing",
    "tab": "a:\n\t- 1",
    "unclosed": "a: [1, 2",
    "control character": "a: \x07",
    "surrogate": "a: \ud800",
    "huge integer": "a: " + "9" * 5000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_a_typed_error(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_yaml(HOSTILE[name], source="recipe.yaml")
    assert "recipe.yaml" in str(caught.value)


def test_error_names_line_and_column() -> None:
    with pytest.raises(InputError, match=r"r\.yaml:3:1 .*") as caught:
        load_yaml("a: 1\nb: 2\na: 3\n", source="r.yaml")
    assert "duplicate key 'a'" in str(caught.value)


def test_depth_at_the_limit_is_read() -> None:
    assert load_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, source="t") is not None
