"""The Pareto front against its definition."""

from edgepress.benchmarks.page.headline import dominates, pareto_front
from hypothesis import given
from hypothesis import strategies as st

POINTS = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(0, 6).map(float)] * width), max_size=24)
)


@given(POINTS)
def test_front_is_exactly_the_undominated_points(points: list[tuple[float, ...]]) -> None:
    expected = [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]
    assert pareto_front(points) == expected


def test_size_against_loss() -> None:
    size_and_loss = [(538.0, 0.0), (171.0, 0.2), (171.0, 0.39), (158.0, 0.92), (180.0, 0.24)]
    assert pareto_front(size_and_loss) == [0, 1, 3]
    assert pareto_front([]) == []


def test_equal_points_share_the_front() -> None:
    assert pareto_front([(1.0, 1.0), (1.0, 1.0)]) == [0, 1]
