"""Norms of rows and of sums, by mean and variance or by the root mean square, against naive references in
numpy; with every set of instructions the same bits.
"""

from typing import Any

import numpy as np
import pytest
from edgepress.runtime.kernels.library import instructions, library
from numpy.typing import NDArray

from .conftest import SETS
from .test_encoder_operators import normed
from .test_operators import run

pytestmark = pytest.mark.skipif(library() is None, reason="the library of operators was not built here")
Array = NDArray[Any]
WIDTHS = [1, 16, 50, 384, 576]
ROWS = np.random.default_rng(0).standard_normal((5, 18)).astype(np.float32)


def by_root_mean_square(x: Array, scale: Array, epsilon: float) -> Array:
    x = x.astype(np.float64)
    return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale)


def vectors(width: int) -> tuple[Array, ...]:
    """Scale, shift and one row for all ``[width]``, and two times 70 rows."""
    random = np.random.default_rng(width)
    return (
        *random.standard_normal((3, width)).astype(np.float32),
        *random.standard_normal((2, 70, width)).astype(np.float32),
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_a_norm_of_sums(kernels: str, width: int) -> None:
    scale, shift, common, a, b = vectors(width)
    for more, total in (({}, a), ({"b": b}, a + b), ({"b": b, "c": common}, a + b + common)):
        inputs = {"scale": scale, "shift": shift, "a": a, **more}
        (found,) = run("SumNorm", inputs, threads=2, epsilon=1e-5)
        assert np.abs(found - normed(total, scale, shift, 1e-5)).max() < 1e-4


@pytest.mark.parametrize("width", WIDTHS)
def test_a_root_mean_square_norm_and_its_sum(kernels: str, width: int) -> None:
    scale, _, common, a, b = vectors(width)
    (found,) = run("RootMeanSquareNorm", {"scale": scale, "a": a}, threads=2, epsilon=1e-5)
    np.testing.assert_allclose(found, by_root_mean_square(a, scale, 1e-5), rtol=1e-5, atol=1e-6)
    for more, total in (({"b": b}, a + b), ({"b": b, "c": common}, a + b + common)):
        found, added = run(
            "SumRootMeanSquareNorm", {"scale": scale, "a": a, **more}, 2, threads=2, epsilon=1e-5
        )
        assert np.array_equal(added, total)
        np.testing.assert_allclose(found, by_root_mean_square(total, scale, 1e-5), rtol=1e-5, atol=1e-6)


def test_a_row_has_one_norm_whatever_is_beside_it(kernels: str) -> None:
    scale, _, _, a, b = vectors(576)
    together = run("SumRootMeanSquareNorm", {"scale": scale, "a": a, "b": b}, 2, threads=2, epsilon=1e-5)
    alone = run("SumRootMeanSquareNorm", {"scale": scale, "a": a[:1], "b": b[:1]}, 2, epsilon=1e-5)
    for many, one in zip(together, alone, strict=True):
        assert np.array_equal(many[:1], one)


def test_numbers_that_are_none_stay_in_their_row(kernels: str) -> None:
    scale, _, _, a, b = vectors(50)
    a[3, 49] = np.nan
    found, _ = run("SumRootMeanSquareNorm", {"scale": scale, "a": a, "b": b}, 2, epsilon=1e-5)
    assert np.isnan(found[3]).all() and np.isfinite(np.delete(found, 3, axis=0)).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_set_of_instructions_gives_the_same_bits(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scale, shift, common, a, b = vectors(width)
    found = {}
    for name in SETS:
        monkeypatch.setenv("EDGEPRESS_KERNELS", name)
        if instructions() == name:
            sums = {"a": a, "b": b, "c": common}
            found[name] = [
                *run("SumNorm", {"scale": scale, "shift": shift, **sums}, epsilon=1e-5),
                *run("SumRootMeanSquareNorm", {"scale": scale, **sums}, 2, epsilon=1e-5),
            ]
    for values in found.values():
        for ours, plain in zip(values, found["plain"], strict=True):
            assert np.array_equal(ours, plain)


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("SumNorm", {"scale": ROWS[0], "shift": ROWS[0, :3], "a": ROWS}),
        ("SumNorm", {"scale": ROWS[0, :9], "shift": ROWS[0, :9], "a": ROWS}),
        ("SumNorm", {"scale": ROWS[0], "shift": ROWS[0], "a": ROWS, "b": ROWS[:2]}),
        ("RootMeanSquareNorm", {"scale": ROWS[0, :9], "a": ROWS}),
        ("RootMeanSquareNorm", {"scale": ROWS[0, :0], "a": ROWS}),
        ("SumRootMeanSquareNorm", {"scale": ROWS[0, :9], "a": ROWS, "b": ROWS}),
        ("SumRootMeanSquareNorm", {"scale": ROWS[0], "a": ROWS, "b": ROWS[:2]}),
        ("SumRootMeanSquareNorm", {"scale": ROWS[0], "a": ROWS, "b": ROWS, "c": ROWS[0, :9]}),
    ],
)
def test_sizes_that_do_not_fit_are_refused(op: str, inputs: dict[str, Array | None]) -> None:
    with pytest.raises(Exception, match="edgepress: "):
        run(op, inputs, 2 if op.startswith("SumRoot") else 1)
