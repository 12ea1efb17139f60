"""Progress inside a block: no step of it is a large part of the block, whatever the pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.pipeline.advance import BlockAdvance
from edgepress.terminal.progress import ProgressTask, Silent

# Each with what else it sets; a pass that only rounds moves a layer at a time in models so small.
PASSES: dict[str, dict[str, Any]] = {
    "rtn": {"scheme": "W4A16-g32"},
    "gptq": {"scheme": "W4A16-g32", "refinements": 2},
    "gptq, corrected": {"scheme": "W4A16-g32", "correction": 0.5},
    "awq": {"scheme": "W4A16-g32"},
    "smoothquant": {"scheme": "W8A8"},
    "hqq": {"scheme": "W4A16-g32"},
    "autoround": {"scheme": "W4A16-g32", "iterations": 8},
    "sparsegpt": {"sparsity": 0.5},
    "alps": {"sparsity": 0.5},
}
LARGEST = 0.4  # of a block, in one step


class Steps(Silent):
    """Keeps every advance of each task."""

    def __init__(self) -> None:
        self.amounts: dict[str, list[float]] = {}
        self.totals: dict[str, float] = {}

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[ProgressTask]:
        amounts = self.amounts.setdefault(label, [])
        self.totals[label] = self.totals.get(label, 0.0) + total

        class Task:
            def advance(self, amount: float = 1, detail: str = "") -> None:
                amounts.append(amount)

        yield Task()


@pytest.mark.chain
@pytest.mark.parametrize("name", PASSES)
def test_no_step_is_a_large_part_of_a_block(
    pico_llama: Path, pico_text: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is a thousandth of a real block is a large part of one so small.
    monkeypatch.setattr("edgepress.compress.numbers.grid._CHUNK_WEIGHTS", 1 << 10)
    monkeypatch.setattr("edgepress.compress.job.BATCH_TOKENS", 64)
    recipe = tmp_path / "recipe.yaml"
    only = {"pass": name.partition(",")[0], **PASSES[name]}
    recipe.write_text(yaml.safe_dump({"name": "one", "passes": [only]}))
    steps = Steps()
    compress_model(
        str(pico_llama),
        recipe=str(recipe),
        output=tmp_path / "o",
        calibration=None if name in ("rtn", "hqq") else str(pico_text),
        samples=16,
        length=32,
        progress=steps,
    )
    about_files = ("hashing the model", "writing the checkpoint", "hashing the result")
    for label in ("compressing blocks", "comparing with the original", *about_files):
        assert 0 < sum(steps.amounts[label]) <= steps.totals[label] * (1 + 1e-6)
    moved = steps.amounts["compressing blocks"]
    assert sum(moved) == pytest.approx(steps.totals["compressing blocks"])
    assert max(moved) < LARGEST


def test_work_that_was_not_planned_does_not_pass_the_end() -> None:
    steps = Steps()
    with steps.task("a", 1) as task:
        advance = BlockAdvance(task, 10.0, "block")
        for _ in range(30):
            advance(1.0)
        assert sum(steps.amounts["a"]) < 1
        advance.end("done")
    assert sum(steps.amounts["a"]) == pytest.approx(1)
