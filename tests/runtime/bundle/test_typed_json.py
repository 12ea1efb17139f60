"""Checked JSON: exact types, named keys, and nothing but :class:`Unusable` for whatever a file may hold."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from edgepress.runtime.bundle.typed_json import (
    Unusable,
    by_name,
    choice,
    document,
    flag,
    integer,
    items,
    optional,
    read,
    section,
    text,
)
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.chain


@dataclass(frozen=True)
class Inner:
    """One number."""

    size: Annotated[int, integer(1, 9)]

    def __post_init__(self) -> None:
        if self.size == 7:
            raise ValueError("seven is taken")


@dataclass(frozen=True)
class Outer:
    """A field of every kind."""

    inner: Annotated[Inner, section(Inner)]
    name: Annotated[str, text("[a-z]+")] = "x"
    on: Annotated[bool, flag] = False
    mode: Annotated[str, choice("fast", "slow")] = "fast"
    limit: Annotated[int | None, optional(integer(0, 5))] = None
    parts: Annotated[list[Inner], items(section(Inner), at_most=2)] = field(default_factory=list)
    named: Annotated[dict[str, int], by_name(text("[a-z]"), integer(0, 1))] = field(default_factory=dict)


WHOLE: dict[str, Any] = {
    "inner": {"size": 3, "novelty": [1]},
    "name": "abc",
    "on": True,
    "mode": "slow",
    "limit": 5,
    "parts": [{"size": 1}, {"size": 2}],
    "named": {"a": 1},
}


def test_a_whole_document_and_its_defaults() -> None:
    found = read(Outer, WHOLE)
    assert found == Outer(Inner(3), "abc", True, "slow", 5, [Inner(1), Inner(2)], {"a": 1})
    assert read(Outer, {"inner": {"size": 1}}) == Outer(Inner(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inner": None}, "inner: is not an object"),
        ({"inner": {}}, "inner.size: is missing"),
        ({"inner": {"size": 1.0}}, "inner.size: must be a whole number from 1 to 9"),
        ({"inner": {"size": True}}, "inner.size"),
        ({"inner": {"size": "3"}}, "inner.size"),
        ({"inner": {"size": 10}}, "inner.size"),
        ({"inner": {"size": 7}}, "inner: seven is taken"),
        ({"name": "Abc"}, "name: must match"),
        ({"name": "abc\n"}, "name: must match"),
        ({"name": "\ud800"}, "name: must be text"),
        ({"on": 1}, "on: must be true or false"),
        ({"mode": "quick"}, "mode: must be one of: fast, slow"),
        ({"mode": ["fast"]}, "mode"),
        ({"limit": 6}, "limit"),
        ({"parts": {}}, "parts: must be a list of 0 to 2"),
        ({"parts": [{"size": 1}] * 3}, "parts"),
        ({"parts": [{"size": 1}, {"size": 0}]}, "parts.1.size"),
        ({"named": [["a", 1]]}, "named: is not an object"),
        ({"named": {"A": 1}}, "named: must match"),
        ({"named": {"a": 2}}, "named.a"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Unusable) as caught:
        read(Outer, {**WHOLE, **change})
    assert str(caught.value).startswith(said)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(WHOLE)), values)
def test_any_value_is_read_or_refused(key: str, value: Any) -> None:
    try:
        found = read(Outer, {**WHOLE, key: value})
    except Unusable:
        return
    assert isinstance(found, Outer)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[" * 100_000, b"\xff\xfe\x7b\x00", b'{"a": ' + b"1" * 5000 + b"}"]
)
def test_bytes_that_are_no_json(raw: bytes) -> None:
    with pytest.raises(Unusable, match="is not JSON"):
        document(raw)
