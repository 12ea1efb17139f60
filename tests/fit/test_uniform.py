"""One scheme for all linears, against trying each."""

import pytest
from edgepress.compress.numbers.scheme import Scheme
from edgepress.fit.candidates import Option, Space, Unit
from edgepress.fit.choices import solve_uniform
from edgepress.fit.solve import Infeasible, Limit, Solution


def unit(name: str, *options: tuple[str | None, float, float], is_table: bool = False) -> Unit:
    """With options of a scheme, damage and size."""
    found = [Option(None if scheme is None else Scheme.parse(scheme), *rest) for scheme, *rest in options]
    return Unit(name, (name,), tuple(found), is_table)


SPACE = Space(
    (
        # A mixture would give the first fewer bits, and the second more.
        unit("a", ("W2A16-g64", 0.1, 2), ("W3A16-g64", 0.05, 3), ("W4A16-g64", 0.01, 4), (None, 0.0, 32)),
        unit("b", ("W3A16-g64", 5.0, 30), ("W4A16-g64", 2.0, 40), ("W8A16-g64", 0.1, 80), (None, 0.0, 320)),
        unit("embedding", ("W4A16-g32", 1.0, 4), ("W8A16-g32", 0.2, 8), is_table=True),
    ),
    0.0,
    0.0,
)


def chosen(bound: float) -> list[str]:
    """Names of the options within so many bytes."""
    found = solve_uniform(SPACE, SPACE.damages, [[Limit("disk", SPACE.sizes, bound)]])
    assert isinstance(found, Solution)
    damage = sum(row[option] for row, option in zip(SPACE.damages, found.options, strict=True))
    assert found.damage == pytest.approx(damage)
    return [option.name for _, option in SPACE.chosen(found.options)]


@pytest.mark.parametrize(
    ("bound", "scheme", "embedding"),
    [
        (37, "W3A16-g64", "W4A16-g32"),
        (44, "W3A16-g64", "W8A16-g32"),
        (48, "W4A16-g64", "W4A16-g32"),
        (1000, "W4A16-g64", "W8A16-g32"),
    ],
)
def test_all_linears_get_one_scheme(bound: float, scheme: str, embedding: str) -> None:
    assert chosen(bound) == [scheme, scheme, embedding]


def test_what_the_smallest_needs_is_said() -> None:
    found = solve_uniform(SPACE, SPACE.damages, [[Limit("disk", SPACE.sizes, 20)]])
    assert isinstance(found, Infeasible) and found.enough == {"disk": 37}
