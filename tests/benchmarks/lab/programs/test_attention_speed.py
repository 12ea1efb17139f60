"""The ways of the attention check compute one thing."""

from pathlib import Path

import numpy as np
import pytest
from edgepress.benchmarks.lab.programs import attention_speed as attention


@pytest.mark.parametrize("setting", [(1, 30), (7, 20)])
def test_all_ways_compute_the_same(
    setting: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(attention.LAYERS, "small", (4, 2, 16))
    found = []
    for way in attention.WAYS:
        arm = attention.Timed(tmp_path / f"{way.name}.onnx", way, "small", setting, 1)
        assert arm.microseconds() > 0
        found.append((way.whole, arm.output()))
    for whole in (False, True):
        tiles, rows = (output for one, output in found if one == whole)
        assert tiles.shape == (1, setting[0], 64)
        np.testing.assert_allclose(rows, tiles, atol=1e-5)


def test_a_row_for_each_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention.LAYERS, "small", (4, 2, 16))
    cells = attention.measured("small", (1, 15), 1, 3)
    assert len(cells) == len(attention.WAYS) and all(int(cell) > 0 for cell in cells)
