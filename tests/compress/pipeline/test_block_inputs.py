"""Block inputs: passes that stream hold one block at a time, whatever the criterion."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress import plan as plan_module
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.skeleton import Skeleton
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.block_inputs import Stream
from edgepress.compress.pipeline.capture import capture
from edgepress.compress.pipeline.forward import watch_inputs
from edgepress.compress.text.token_batch import TokenBatch
from torch import Tensor, nn

pytestmark = pytest.mark.chain


CALIBRATED: dict[str, Any] = {"samples": 12, "length": 32}


def recipe(folder: Path, step: dict[str, Any]) -> str:
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "passes": [step]}))
    return str(path)


MEASURING: list[dict[str, Any]] = [
    {"pass": "allocate", "bits": 3.5, "schemes": ["W2A16-g32", "W4A16-g32"], "using": {"pass": "rtn"}},
    {"pass": "allocate_sparsity", "sparsity": 0.5},
    {"pass": "narrow", "keep": 0.7},
    {"pass": "block_qat", "scheme": "W4A16-g32", "distance": "fisher", "training": {"epochs": 1}},
]


@pytest.mark.parametrize(
    "step",
    [
        *MEASURING,
        {"pass": "layers", "keep": 0.7},
        {"pass": "layers", "keep": 0.4, "criterion": "contiguous"},
        {"pass": "layers", "keep": 0.4, "criterion": "greedy"},
        {"pass": "width", "keep": 0.7, "multiple": 16},
        {"pass": "rotate", "learn": "W4A16-g32", "steps": 2},
        {"pass": "rtn", "scheme": "W4A16-g32"},
    ],
    ids=[
        "allocate",
        "sparsity",
        "narrow",
        "block_qat",
        "influence",
        "contiguous",
        "greedy",
        "width",
        "rotate",
        "sweep",
    ],
)
def test_one_block_is_in_memory_at_a_time(
    step: dict[str, Any], pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill: Callable[[Skeleton, str], nn.Module] = Skeleton.fill
    filled: list[str] = []

    def counting(self: Skeleton, stored: str) -> nn.Module:
        module = fill(self, stored)
        blocks = [block for stack in self.stacks() for block in stack]
        if isinstance(module, type(blocks[0])):
            held = [n for n, block in enumerate(blocks) if not _empty(block)]
            assert len(held) == 1
            filled.append(stored)
        return module

    monkeypatch.setattr(Skeleton, "fill", counting)
    compress_model(
        str(pico_llama),
        recipe=recipe(tmp_path, step),
        output=tmp_path / "o",
        calibration=str(pico_text),
        **CALIBRATED,
    )
    assert len(set(filled)) == 3


def _empty(block: nn.Module) -> bool:
    return all(parameter.device.type == "meta" for parameter in block.parameters())


@pytest.mark.parametrize(
    "step", [{"pass": "layers", "keep": 0.7}, {"pass": "width", "keep": 0.7}, *MEASURING]
)
def test_the_plan_counts_blocks_and_not_the_model(
    step: dict[str, Any],
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twelve times the blocks: peak memory stays what it is."""
    monkeypatch.setattr(plan_module, "resident", lambda: 0)  # this process grows between the two
    peaks = []
    for blocks in (2, 24):
        model = make_decoder(tmp_path / f"{blocks}", num_hidden_layers=blocks)
        plan = plan_model(str(model), recipe=recipe(tmp_path, step), calibration=str(pico_text), **CALIBRATED)
        peaks.append(plan.peak_memory)
    assert abs(peaks[1] - peaks[0]) < 4 << 20


def test_a_stream_moves_forks_and_keeps_the_rows_of_real_tokens(pico_llama: Path, tmp_path: Path) -> None:
    skeleton = Skeleton(WeightSource.open(pico_llama), torch.device("cpu"))
    ids, mask = torch.randint(3, 100, (2, 5)), torch.ones(2, 5, dtype=torch.int64)
    mask[1, 3:] = 0
    batches = [TokenBatch(ids, mask), TokenBatch(ids[:1], mask[:1])]
    hidden = [states for states, *_ in capture(skeleton, batches)]
    stream = Stream.capture(tmp_path / "a", skeleton, batches)
    assert [len(rows) for rows in stream.rows(0)] == [8, 5]
    assert torch.equal(torch.cat(list(stream.rows(0)))[:5], hidden[0][0])
    other = stream.fork("b", 0, 2)
    assert torch.equal(next(other.raw(2)).hidden, hidden[0])
    other.drop(2)
    with pytest.raises(FileNotFoundError):
        next(other.raw(2))
    assert torch.equal(next(stream.raw(0)).hidden, hidden[0])


def test_watching_ends_at_the_last_module_only_when_asked() -> None:
    first, second, third = (nn.Linear(2, 2) for _ in range(3))
    seen: list[str] = []
    chain = nn.Sequential(first, second, third)
    third.register_forward_hook(lambda *_: seen.append("third"))

    def see(name: str) -> Callable[[Tensor], None]:
        return lambda _: seen.append(name)

    for stop in (True, False):
        watch_inputs(lambda: chain(torch.ones(1, 2)), [(first, see("a")), (second, see("b"))], stop=stop)
    assert seen == ["a", "b", "a", "b", "third"]
