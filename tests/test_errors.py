"""The typed tree: exit codes, messages of three parts, the nearest name, the missing extra."""

import json

import edgepress
import pytest
from edgepress import errors
from edgepress.errors import EdgepressError, InputError, MissingDependency, UnknownName, require
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.chain


# The table of the conventions: what a shell script may rely on.
EXIT_CODES = {
    "EdgepressError": 70,
    "GateFailed": 1,
    "InputError": 2,
    "Degraded": 3,
    "MissingDependency": 4,
    "RefusedByPolicy": 5,
    "OutOfResource": 6,
    "Interrupted": 130,
    "Terminated": 143,
}


def test_public_functions_state_their_errors() -> None:
    public = [name for name in edgepress.__all__ if name != "__version__"]
    assert [name for name in public if "Raises:" not in (getattr(edgepress, name).__doc__ or "")] == []


def tree(root: type[EdgepressError] = EdgepressError) -> list[type[EdgepressError]]:
    """Every class that errors.py defines."""
    below = [found for child in root.__subclasses__() for found in tree(child)]
    return [kind for kind in [root, *below] if kind.__module__ == errors.__name__]


def test_exit_codes_are_the_documented_ones() -> None:
    for name, code in EXIT_CODES.items():
        assert getattr(errors, name).exit_code == code, name
    others = {kind for kind in tree() if kind.__name__ not in EXIT_CODES}
    assert others and all(issubclass(kind, InputError) and kind.exit_code == 2 for kind in others)


def test_codes_are_distinct_and_greppable() -> None:
    codes = [kind.code for kind in tree()]
    assert len(set(codes)) == len(codes)
    assert all(code.startswith("E-") and code == code.upper() for code in codes)


def test_every_class_is_explained() -> None:
    assert [kind.__name__ for kind in tree() if not kind.__doc__] == []


def test_every_class_has_a_way_out_of_its_own() -> None:
    """But those of signals: who stopped the work knows what to do."""
    signals = {"Interrupted", "Terminated"}
    named = {kind.__name__ for kind in tree() if "way_out" in vars(kind) and kind.way_out}
    inherits = {"BadUsage", "UnknownName"}  # always made with one
    assert {kind.__name__ for kind in tree()} - named == signals | inherits


TEXTS = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1)


@given(what=TEXTS, why=TEXTS | st.just(""), fix=TEXTS | st.just(""))
def test_message_has_the_parts_that_are_there(what: str, why: str, fix: str) -> None:
    error = InputError(what, why=why, fix=fix)
    assert str(error).split("\n") == [what, *([why] if why else []), f"→ {fix or InputError.way_out}"]
    document = json.loads(json.dumps(error.as_dict()))
    assert document == {"code": "E-INPUT", "exit_code": 2, "what": what, "why": why, "fix": error.fix}
    assert error.fix == (fix or InputError.way_out)


@pytest.mark.parametrize(
    ("name", "nearest"), [("gtpq", "gptq"), ("magnitud", "magnitude"), ("zzzz", None), ("", None)]
)
def test_unknown_name_offers_the_nearest(name: str, nearest: str | None) -> None:
    error = UnknownName("pass", name, ["rtn", "magnitude", "gptq"])
    assert error.what == f"unknown pass {name!r}"
    assert error.fix.endswith("known: gptq, magnitude, rtn")
    assert error.fix.startswith(f"did you mean {nearest!r}?" if nearest else "known:")


def test_unknown_name_where_nothing_is_known() -> None:
    assert UnknownName("target", "x", []).fix == "known: none"
    assert UnknownName("target", "x", ["xy"], fix="write one").fix == "write one"


def test_require() -> None:
    require("json", "cpu")
    with pytest.raises(MissingDependency, match=r"edgepress\[cpu\]") as caught:
        require("a_package_nobody_installed", "cpu")
    assert caught.value.exit_code == 4
