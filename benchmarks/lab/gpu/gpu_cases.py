"""What the GPU check measures. Every case takes its device, so that the same code runs, and is tested, on a
machine without a GPU.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ....compress.api import compress_model
from ....compress.model.torch_model import load_model
from ....compress.model.weights import WeightSource
from ....compress.numbers.qtensor import QTensor
from ....errors import InputError
from ....export.api import export_bundle
from ....export.proof.proof_text import proof_text
from ....runtime.text.tokenizer import Tokenizer
from ....terminal.progress import Progress, ProgressTask
from ...records.record import Measurement
from ...speed.profile import profile_bundle
from ...speed.protocol import Protocol


@dataclass(frozen=True)
class DeviceCost:
    """What a compression took: seconds in all, seconds of each block, and the peak of allocated VRAM in bytes
    (None where the device has none).
    """

    seconds: float
    block_seconds: tuple[float, ...]
    peak_vram: int | None


_ROUNDED = 1e-6  # of a block, what its parts may lack


class _BlockClock:
    """Notes the moment of every block that is whole, and hands each advance on."""

    def __init__(self, task: ProgressTask, moments: list[float]) -> None:
        self.task, self.moments, self.done = task, moments, 0.0

    def advance(self, amount: float = 1, detail: str = "") -> None:
        self.done += amount
        if self.done >= len(self.moments) - _ROUNDED:  # the moments hold the start too
            self.moments.append(time.monotonic())
        self.task.advance(amount, detail)


class BlockTimes:
    """A progress that also times the blocks of a sweep."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.moments: list[float] = []

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[ProgressTask]:
        with self.progress.task(label, total) as task:
            if label == "compressing blocks":
                self.moments = [time.monotonic()]
                yield _BlockClock(task, self.moments)
            else:
                yield task

    def note(self, text: str) -> None:
        self.progress.note(text)

    @property
    def seconds(self) -> tuple[float, ...]:
        """How long each block took, in order."""
        return tuple(after - before for before, after in zip(self.moments, self.moments[1:], strict=False))


def compress_on(
    device: str, model: str, output: Path, options: dict[str, Any], progress: Progress
) -> DeviceCost:
    """Compress ``model`` on ``device``; ``options`` go to :func:`compress_model`."""
    on_cuda = device.startswith("cuda")
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    times, started = BlockTimes(progress), time.monotonic()
    compress_model(model, output=output, device=device, progress=times, **options)
    peak = torch.cuda.max_memory_allocated() if on_cuda else None
    return DeviceCost(time.monotonic() - started, times.seconds, peak)


def equal_codes(one: Path, other: Path) -> float:
    """Fraction of the codes that two compressed checkpoints of one model have in common."""
    first, second = WeightSource.open(one), WeightSource.open(other)
    if not first.schemes or first.schemes != second.schemes:
        raise InputError(f"{one} and {other} have no equal set of quantized layers")
    same = total = 0
    for name in first.schemes:
        mine, theirs = first.linear(name), second.linear(name)
        assert isinstance(mine, QTensor) and isinstance(theirs, QTensor)
        same += int((mine.codes == theirs.codes).sum())
        total += mine.codes.numel()
    return same / total


def logits_agreement(model: Path, device: str, tokens: int = 256) -> tuple[float, float]:
    """Largest absolute difference of the logits on ``device`` and on the CPU, and the fraction of positions
    with the same most likely token, on the first ``tokens`` of a fixed passage.
    """
    ids = torch.tensor([Tokenizer.open(model).encode(proof_text(None))[:tokens]])
    with torch.no_grad():
        here = load_model(model)(ids).logits
        there = load_model(model, device=device)(ids.to(device)).logits.cpu()
    same = (here.argmax(-1) == there.argmax(-1)).double().mean()
    return float((here - there).abs().max()), float(same)


def profile_on(
    provider: str, checkpoint: Path, bundle: Path, progress: Progress, protocol: Protocol | None = None
) -> Measurement:
    """Export ``checkpoint`` for an execution provider, with the proof, and measure its speed with it."""
    export_bundle(checkpoint, output=bundle, provider=provider, progress=progress)
    return profile_bundle(
        bundle,
        provider=provider,
        protocol=protocol or Protocol.quick(),
        record=bundle.with_suffix(".jsonl"),
        command=f"edgepress profile {bundle.name} --provider {provider} --quick",
        progress=progress,
    )
