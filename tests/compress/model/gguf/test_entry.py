"""Numbers that a GGUF file has in another form come back: decays, whose logarithms a checkpoint stores."""

import numpy as np
import pytest
from edgepress.compress.model.gguf.entry import Part

ROWS = np.arange(1, 17, dtype=np.float32)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 3.0, 10.0])
def test_a_decay_comes_back_to_the_last_bit(scale: float) -> None:
    logarithms = np.random.default_rng(3).normal(0, scale, (64, 100)).astype(np.float32)
    part = Part("A_log", decay=True)
    there = part.of(logarithms)
    assert (there < 0).all()
    back = part.back(there)
    np.testing.assert_array_equal(part.of(back), there)
    np.testing.assert_allclose(back, logarithms, rtol=0, atol=3e-7 * max(1.0, scale))


def test_mamba_s_own_first_decays_are_whole_numbers() -> None:
    part = Part("A_log", shape=(16, 1), decay=True)
    there = part.of(np.log(ROWS))
    assert there.shape == (16, 1)
    np.testing.assert_allclose(there[:, 0], -ROWS, rtol=2e-7)


def test_what_is_no_decay_is_no_number() -> None:
    assert not np.isfinite(Part("A_log", decay=True).back(np.array([1.0, 0.0], np.float32))).any()


def test_rows_and_offsets_come_back() -> None:
    part = Part("norm", rows=np.array([2, 0, 1]), added=1.0)
    stored = np.array([1.0, 2.0, 4.0], np.float32)
    back = np.empty(3, np.float32)
    back[part.rows] = part.back(part.of(stored))
    np.testing.assert_array_equal(back, stored)
