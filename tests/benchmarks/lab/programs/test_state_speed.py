"""Every way of a model with a state is timed in every round."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.benchmarks.lab.programs import state_speed as speed


class Model:
    """What is asked of a torch model and of a decoder."""

    def __init__(self) -> None:
        self.prompts = 0

    def generate(self, ids: Any, **_: Any) -> None:
        self.prompts += 1

    def prefill(self, ids: list[int], *, new_tokens: int) -> np.ndarray[Any, Any]:
        assert (len(ids), new_tokens) == (speed.PROMPT, speed.NEW)
        self.prompts += 1
        return np.zeros(4)

    def step(self, token: int) -> np.ndarray[Any, Any]:
        return np.zeros(4)


def test_a_row_has_the_prompt_and_a_token_of_each_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch_model, bundles = Model(), {way: Model() for way in speed.WAYS[1:]}
    monkeypatch.setattr(speed, "made", lambda family, work: (torch_model, bundles))
    cells = speed.row("mamba", speed.measured("mamba", tmp_path, 3))
    assert cells[0] == "mamba" and len(cells) == 2 * len(speed.WAYS)
    assert all(cell.count(" · ") == 1 for cell in cells[1:])
    assert torch_model.prompts == 6 and {one.prompts for one in bundles.values()} == {3}


def test_how_many_times_as_fast_is_the_median_of_the_rounds_and_what_is_slower_is_named() -> None:
    plain, small = [(1.0, 0.1), (2.0, 0.1), (9.0, 0.1)], [(0.5, 0.2), (1.0, 0.2), (1.0, 0.2)]
    taken = dict(zip(speed.WAYS, (plain, small, plain), strict=True))
    cells = speed.row("mamba", taken)
    assert speed.spread(taken) == 4.5
    assert cells[1:] == ["2000 · 100.0", "1000 · 200.0", "2000 · 100.0", "2.00 · 0.50", "1.00 · 1.00"]
    assert speed.slower([cells]) == "Slower than torch: tokens of mamba, float bundle."
    assert speed.slower([]) == "Slower than torch: none."
