"""The loop: it descends, keeps the best, resumes to the same bytes, and comes back from bad losses."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.loop import Loop
from edgepress.compress.train.train_state import LoopSettings
from edgepress.errors import TrainingError
from edgepress.terminal.progress import Silent
from torch import Tensor, nn

TARGETS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)) * 0.1 + 1
EMPTY = torch.zeros(0)
PIECES = [MicroBatch(number, EMPTY, EMPTY, 10) for number in range(12)]


class Task:
    """A vector that should become the mean of the targets; every micro-batch has one."""

    def __init__(
        self, state: Path, *, rate: float = 0.05, epochs: int = 10, scaled: bool = False, **options: Any
    ) -> None:
        self.vector = nn.Parameter(torch.zeros(5))
        self.calls, self.hook = 0, lambda loss: loss
        settings = LoopSettings(
            state=state,
            log=state.with_suffix(".jsonl"),
            learning_rate=rate,
            **{"tokens": 120 * epochs, **options},
            batch_tokens=30,
            seed=3,
        )
        self.loop = Loop([self.vector], PIECES, self.learn, self.measure, settings, scaled=scaled)

    def learn(self, micro_batch: MicroBatch, share: float) -> float:
        self.calls += 1
        loss: Tensor = self.hook(
            (self.vector - TARGETS[micro_batch.number]).square().sum() * micro_batch.tokens
        )
        (loss * share).backward()
        return float(loss.detach())

    def measure(self) -> float:
        return float((self.vector.detach() - TARGETS.mean(0)).square().sum())


def test_it_descends_to_the_minimum(tmp_path: Path) -> None:
    task = Task(tmp_path / "s.pt")
    train_state = task.loop.run(Silent())
    losses = [loss for _, loss in train_state.held_out]
    assert losses[0] > 1 and train_state.best[1] < 0.01 * losses[0]
    assert task.measure() == train_state.best[1]


def test_every_micro_batch_comes_once_an_epoch_in_another_order(tmp_path: Path) -> None:
    steps = Task(tmp_path / "s.pt", epochs=2).loop.steps
    assert [len(batch) for batch in steps] == [3] * 8
    orders = [
        [micro_batch.number for batch in half for micro_batch in batch] for half in (steps[:4], steps[4:])
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12)) and orders[0] != orders[1]


def test_what_only_makes_it_worse_is_not_kept(tmp_path: Path) -> None:
    task = Task(tmp_path / "s.pt")
    task.vector.data = TARGETS.mean(0).clone()
    task.hook = lambda loss: -loss
    before = task.measure()
    train_state = task.loop.run(Silent())
    assert train_state.best[0] == 0 and task.measure() == before


class Killed(BaseException):
    pass


@pytest.mark.chain
@pytest.mark.parametrize(("at", "ema"), [(1, 0.0), (17, 0.9), (60, 0.0), (60, 0.9), (119, 0.0)])
def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, at: int, ema: float) -> None:
    whole = Task(tmp_path / "whole.pt", ema=ema)
    train_state = whole.loop.run(Silent())

    def killing(task: Task) -> Callable[[Tensor], Tensor]:
        def hook(loss: Tensor) -> Tensor:
            if task.calls == at:
                raise Killed
            return loss

        return hook

    first = Task(tmp_path / "s.pt", ema=ema)
    first.hook = killing(first)
    with pytest.raises(Killed):
        first.loop.run(Silent())
    second = Task(tmp_path / "s.pt", ema=ema)
    assert second.loop.run(Silent()) == train_state
    assert torch.equal(second.vector, whole.vector)
    assert second.calls < whole.calls or at < 20


@pytest.mark.chain
@pytest.mark.parametrize("settings", [{}, {"patience": 1}, {"max_seconds": 0.0}], ids=str)
def test_a_run_killed_after_its_last_step_learns_no_more(tmp_path: Path, settings: dict[str, Any]) -> None:
    first, second = (Task(tmp_path / "s.pt", **settings) for _ in range(2))
    train_state = first.loop.run(Silent())
    again = second.loop.run(Silent())
    assert (again.held_out, again.stopped) == (
        train_state.held_out,
        train_state.stopped,
    ) and second.calls == 0
    assert torch.equal(second.vector, first.vector)
    kept = torch.load(tmp_path / "s.pt", weights_only=True)
    assert set(kept) == {"train_state", "best", "holders"}


@pytest.mark.chain
def test_a_run_whose_state_was_damaged_begins_again_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = Task(tmp_path / "whole.pt")
    train_state = whole.loop.run(Silent())
    Task(tmp_path / "s.pt").loop.run(Silent())
    data = bytearray((tmp_path / "s.pt").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "s.pt").write_bytes(data)
    second = Task(tmp_path / "s.pt")
    assert second.loop.run(Silent()) == train_state and second.calls == whole.calls
    assert torch.equal(second.vector, whole.vector)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e4])
def test_a_loss_out_of_hand_takes_it_back_with_half_the_rate(tmp_path: Path, bad: float) -> None:
    task = Task(tmp_path / "s.pt")
    task.hook = lambda loss: loss * bad if task.calls == 50 else loss
    train_state = task.loop.run(Silent())
    assert train_state.rollbacks == 1 and train_state.best[1] < 0.1 * train_state.held_out[0][1]
    assert task.loop.rate(20) == pytest.approx(0.5 * Task(tmp_path / "o.pt").loop.rate(20))


def test_it_gives_up_when_every_way_is_bad_and_keeps_the_best(tmp_path: Path) -> None:
    task = Task(tmp_path / "s.pt")
    task.hook = lambda loss: loss * math.nan if task.calls > 50 else loss
    train_state = task.loop.run(Silent())
    assert train_state.rollbacks == 4 and train_state.step < len(task.loop.steps)
    assert task.measure() == train_state.best[1] < train_state.held_out[0][1]


def test_a_model_that_is_no_number_from_the_start_is_an_error(tmp_path: Path) -> None:
    task = Task(tmp_path / "s.pt")
    task.vector.data[0] = math.nan
    with pytest.raises(TrainingError, match="not finite"):
        task.loop.run(Silent())


def test_the_rate_rises_and_falls(tmp_path: Path) -> None:
    loop = Task(tmp_path / "s.pt").loop
    rates = [loop.rate(step) for step in range(len(loop.steps))]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(0.05) and rates[-1] < 0.2 * 0.05


def test_the_budget_of_tokens_is_spent_and_no_more(tmp_path: Path) -> None:
    steps = Task(tmp_path / "s.pt", tokens=170).loop.steps
    assert [sum(micro_batch.tokens for micro_batch in batch) for batch in steps] == [30] * 6
    train_state = Task(tmp_path / "s.pt", tokens=170).loop.run(Silent())
    assert train_state.stopped == "tokens" and train_state.tokens == [0, 30, 60, 90, 120, 150, 180]


def test_it_ends_when_the_held_out_loss_no_longer_falls(tmp_path: Path) -> None:
    task = Task(tmp_path / "s.pt", patience=2)
    task.vector.data = TARGETS.mean(0).clone()
    task.hook = lambda loss: -loss
    train_state = task.loop.run(Silent())
    assert train_state.stopped == "patience" and len(train_state.held_out) == 3 and train_state.best[0] == 0
    assert Task(tmp_path / "s.pt", patience=2).loop.run(Silent()) == train_state


def test_it_ends_when_its_time_is_up(tmp_path: Path) -> None:
    train_state = Task(tmp_path / "s.pt", max_seconds=1e-9).loop.run(Silent())
    assert train_state.stopped == "max_time" and train_state.step == 1


@pytest.mark.chain
def test_the_log_of_a_killed_run_is_that_of_a_whole_one(tmp_path: Path) -> None:
    Task(tmp_path / "whole.pt").loop.run(Silent())
    first = Task(tmp_path / "s.pt")

    def killing(loss: Tensor) -> Tensor:
        if first.calls == 70:
            raise Killed
        return loss

    first.hook = killing
    with pytest.raises(Killed):
        first.loop.run(Silent())
    Task(tmp_path / "s.pt").loop.run(Silent())
    assert (tmp_path / "s.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.chain
def test_a_leap_is_no_fault_while_the_model_changes(tmp_path: Path) -> None:
    for settled, retreats in ((0.5, 0), (0.0, 1)):
        task = Task(tmp_path / f"{settled}.pt", settled=settled)
        task.hook = lambda loss, task=task: loss * 1e4 if task.calls == 50 else loss  # type: ignore[misc]
        assert task.loop.run(Silent()).rollbacks == retreats


def test_the_average_is_what_is_measured_and_kept(tmp_path: Path) -> None:
    task = Task(tmp_path / "s.pt", ema=0.8)
    average, real, after = torch.zeros(5), task.loop.optimizer.step, {0: torch.zeros(5)}

    def watched() -> None:
        real()
        decay = min(0.8, (1 + task.loop.state.step + 1) / (10 + task.loop.state.step + 1))
        average.mul_(decay).add_(task.vector.detach(), alpha=1 - decay)
        after[task.loop.state.step + 1] = average.clone()

    task.loop.optimizer.step = watched  # type: ignore[method-assign, assignment]
    train_state = task.loop.run(Silent())
    assert torch.allclose(task.vector, after[train_state.best[0]]) and task.measure() == train_state.best[1]


def test_two_stages_fall_in_lines_and_the_second_has_no_decay(tmp_path: Path) -> None:
    settings = Task(tmp_path / "s.pt", schedule="two_stages", warmup=0.0, weight_decay=0.1).loop.settings
    shares = [settings.share(step, 100) for step in range(100)]
    assert shares[:50] == pytest.approx([1 - step / 100 for step in range(50)])
    assert shares[50:] == pytest.approx([(1 - step / 100) * 2 / 3 for step in range(50, 100)])
    assert settings.decay(0.49) == 0.1 and settings.decay(0.5) == 0.0
    assert Task(tmp_path / "s.pt", weight_decay=0.1).loop.settings.decay(0.9) == 0.1


def test_weight_decay_takes_its_share_after_each_step(tmp_path: Path) -> None:
    task = Task(tmp_path / "s.pt", weight_decay=0.2)
    shares: list[float] = []
    task.loop.decay = shares.append
    task.loop.run(Silent())
    assert shares == pytest.approx([0.2 * task.loop.rate(step) for step in range(len(task.loop.steps))])


@pytest.mark.chain
def test_a_scale_that_loses_nothing_changes_nothing(tmp_path: Path) -> None:
    plain, scaled = Task(tmp_path / "p.pt"), Task(tmp_path / "s.pt", scaled=True)
    assert plain.loop.run(Silent()) == scaled.loop.run(Silent()) and scaled.loop.scale.factor > 1
    assert torch.equal(plain.vector, scaled.vector)


def in_halves(folder: Path) -> Task:
    """A task whose gradients are as float16 holds them, and large for a while."""
    folder.mkdir(exist_ok=True)
    task = Task(folder / "s.pt", scaled=True)

    def rounded(gradient: Tensor) -> Tensor:
        return (gradient * (64 if task.calls < 60 else 1)).to(torch.float16).to(torch.float32)

    task.vector.register_hook(rounded)
    return task


@pytest.mark.chain
@pytest.mark.parametrize("at", [5, 61])
def test_a_gradient_that_overflows_skips_its_step_and_nothing_else(tmp_path: Path, at: int) -> None:
    whole, first = in_halves(tmp_path), in_halves(tmp_path / "killed")
    train_state = whole.loop.run(Silent())
    assert 2 <= train_state.skipped == 16 - math.log2(whole.loop.scale.factor) and train_state.rollbacks == 0
    assert (
        train_state.step == len(whole.loop.steps) and train_state.best[1] < 0.05 * train_state.held_out[0][1]
    )

    def killing(loss: Tensor) -> Tensor:
        if first.calls == at:
            raise Killed
        return loss

    first.hook = killing
    with pytest.raises(Killed):
        first.loop.run(Silent())
    second = in_halves(tmp_path / "killed")
    second.calls = 3 * torch.load(tmp_path / "killed" / "s.pt")["train_state"]["step"]
    assert second.loop.run(Silent()) == train_state and torch.equal(second.vector, whole.vector)


def test_a_gradient_that_no_scale_saves_is_a_loss_out_of_hand(tmp_path: Path) -> None:
    task = Task(tmp_path / "s.pt", scaled=True)
    task.vector.register_hook(lambda gradient: gradient * math.inf)
    train_state = task.loop.run(Silent())
    assert train_state.stopped == "the loss left its course" and train_state.best[0] == 0
    assert torch.equal(task.vector, torch.zeros(5))
