"""Products of quantized weights in every form of storage, with numbers of any size: against the definition,
and the same bits with every set of instructions, any number of threads and any number of rows at once.
"""

import numpy as np
import pytest
from edgepress.runtime.kernels.library import instructions, library
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import SETS
from .test_operators import BITS, Array, Matrix, close, matrix, rounded, run

pytestmark = pytest.mark.skipif(library() is None, reason="the library of operators was not built here")


def product(held: Matrix, x: Array, bias: Array | None = None, threads: int = 1, exact: int = 0) -> Array:
    """``x [tokens, columns]`` times the weights."""
    inputs = {"x": x, "w": held.tiles, "bias": bias}
    return run("QuantizedProduct", inputs, 1, threads, exact=exact, **held.layout.attributes())[0]


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_form_is_the_definition_and_has_one_result(data: st.DataObject) -> None:
    rows, columns, tokens = (data.draw(st.integers(1, most)) for most in (70, 300, 40))
    half, zeros = data.draw(st.booleans()), data.draw(st.booleans())
    bits, group = (
        data.draw(st.sampled_from(BITS)),
        data.draw(st.sampled_from([16, 32, 48, 64, 96, 128, 256, None])),
    )
    step = data.draw(st.sampled_from([2e-6, 0.1, 6e4] if half else [1e-42, 1e-30, 0.1, 1e20]))
    held = matrix(rows, columns, bits, group, zeros, tokens, half=half, step=step)
    random = np.random.default_rng(rows)
    x = (random.standard_normal((tokens, columns)) * data.draw(st.sampled_from([1e-30, 1.0, 1e14]))).astype(
        np.float32
    )
    bias = random.standard_normal(rows).astype(np.float32) if data.draw(st.booleans()) else None
    seen, weights = rounded(x, held.layout.group), np.abs(held.weight)
    added = np.zeros(rows) if bias is None else bias
    for exact, inputs in ((0, seen), (1, x.astype(np.float64))):
        found = {}
        for name in SETS:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("EDGEPRESS_KERNELS", name)
                if instructions() == name:
                    found[name] = product(held, x, bias, threads=2, exact=exact)
        for name, values in found.items():
            assert np.array_equal(values, found["plain"]), name
        alone = [product(held, x[i : i + 1], bias, exact=exact) for i in range(tokens)]
        assert np.array_equal(np.concatenate(alone), found["plain"])
        close(found["plain"], inputs @ held.weight.T + added, np.abs(inputs) @ weights.T + np.abs(added))


@pytest.mark.parametrize("exact", [0, 1])
def test_numbers_that_are_none_reach_their_row_alone(kernels: str, exact: int) -> None:
    held = matrix(50, 100, 3, 16, True)
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones((11, 100), np.float32)
        x[[2, 9], [99, 0]] = bad
        found = product(held, x, exact=exact)
        assert np.isfinite(np.delete(found, (2, 9), axis=0)).all()
        # In float an infinity times a weight of zero is no number, and times another one infinite.
        assert not np.isfinite(found[[2, 9]]).any() if exact else np.isnan(found[[2, 9]]).all()


def test_what_is_too_small_to_round_is_zero(kernels: str) -> None:
    held, bias = matrix(50, 64, 4, 64, True), np.arange(50, dtype=np.float32)
    for tiny in (0.0, 1e-45, 1e-37):
        found = product(held, np.full((3, 64), tiny, np.float32), bias)
        assert np.array_equal(found, np.tile(bias, (3, 1)))


def test_a_scale_of_weights_that_is_none_reaches_its_output_alone(kernels: str) -> None:
    held = matrix(50, 64, 4, 64, False)
    scales = held.tiles.view(np.float16)
    scales[3] = np.inf
    found = product(held, np.ones((9, 64), np.float32))
    assert not np.isfinite(found[:, 3]).any() and np.isfinite(np.delete(found, 3, axis=1)).all()
