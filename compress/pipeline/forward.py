"""Running token batches through one block: in micro-batches when memory is short, no further than needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CalibrationError, OutOfResource

# A module, and what is shown the first of its positional inputs.
Watched = tuple[nn.Module, Callable[[Tensor], None]]


class Batch:
    """One calibration batch as it enters a block.

    ``hidden [batch, tokens, hidden]``; ``arguments`` are the block's keyword arguments; ``mask [batch,
    tokens]`` bool marks real tokens, or None when all are; ``memory_mask`` those of an encoder that the
    block reads in addition.
    """

    def __init__(
        self,
        hidden: Tensor,
        arguments: Mapping[str, Any],
        mask: Tensor | None,
        memory_mask: Tensor | None = None,
    ) -> None:
        self.hidden, self.arguments, self.mask = hidden, arguments, mask
        self.memory_mask = memory_mask

    def masked(self, mask: Tensor | None, hidden: Tensor | None = None) -> Batch:
        """With another mask, and other states where they are given."""
        states = self.hidden if hidden is None else hidden
        return Batch(states, self.arguments, mask, self.memory_mask)

    def split(self, parts: int) -> Iterator[Batch]:
        """The batch in up to ``parts`` micro-batches along its first axis."""
        size = self.hidden.shape[0]
        step = max(1, -(-size // parts))
        for start in range(0, size, step):
            rows = slice(start, start + step)

            def cut(value: Any, rows: slice = rows) -> Any:
                if isinstance(value, Tensor):
                    return value[rows] if value.ndim and value.shape[0] == size > 1 else value
                return tuple(cut(item, rows) for item in value) if isinstance(value, tuple) else value

            arguments = {name: cut(value) for name, value in self.arguments.items()}
            yield Batch(self.hidden[rows], arguments, cut(self.mask), cut(self.memory_mask))


def block_output(module: nn.Module, batch: Batch) -> Tensor:
    """The block's output ``[batch, tokens, hidden]``, with gradients where they are enabled."""
    output = module(batch.hidden, **batch.arguments)
    return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]


def run_block(module: nn.Module, batch: Batch) -> Tensor:
    """The block's output ``[batch, tokens, hidden]``, without gradients."""
    with torch.no_grad():
        return block_output(module, batch)


class StopForward(Exception):
    """Raised below :func:`until_stopped` to end a forward pass once what was wanted has been seen."""


def until_stopped(run: Callable[[], object]) -> None:
    """Call ``run`` without gradients, until it ends or something in it raises :class:`StopForward`."""
    try:
        with torch.no_grad():
            run()
    except StopForward:
        pass


def watch_inputs(
    run: Callable[[], object], watched: Sequence[Watched], *, stop: bool, calls: int = 1
) -> None:
    """Call ``run`` without gradients and show the inputs of the first ``calls`` of the ``watched`` modules,
    which are called in this order; with ``stop`` it ends at the last of them. A module may be called for
    other than tokens then.
    """
    seen = [0] * len(watched)

    def hook(index: int, see: Callable[[Tensor], None]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if seen[index] == calls:
                return
            seen[index] += 1
            see(inputs[0])
            if stop and index + 1 == len(watched) and seen[index] == calls:
                raise StopForward

        return look

    handles = [
        module.register_forward_pre_hook(hook(index, see)) for index, (module, see) in enumerate(watched)
    ]
    try:
        until_stopped(run)
    finally:
        for handle in handles:
            handle.remove()


class BatchSplitter:
    """How many micro-batches a batch is run in: doubled when the device runs out of memory, with a note."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.parts, self.note = 1, note

    def after(self, error: torch.OutOfMemoryError, batch_size: int) -> None:
        """React to an out-of-memory error."""
        if self.parts >= batch_size:
            raise OutOfResource(
                "one calibration sequence does not fit the device's memory",
                why=str(error).splitlines()[0],
                fix="use a smaller --length or --device cpu",
            ) from error
        self.parts *= 2
        self.note(f"the device ran out of memory: batches are now run in {self.parts} pieces")


def propagate(module: nn.Module, batch: Batch, smaller: BatchSplitter) -> Tensor:
    """The block's output for ``batch``, in micro-batches when memory is short."""
    while True:
        try:
            outputs = [run_block(module, part) for part in batch.split(smaller.parts)]
            return torch.cat(outputs).to(batch.hidden.dtype)
        except torch.OutOfMemoryError as error:
            smaller.after(error, batch.hidden.shape[0])


def nonfinite(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """``[batch]``: the samples of ``hidden [batch, tokens, hidden]`` with NaN or infinity in a real token."""
    broken = ~torch.isfinite(hidden).all(-1)
    return (broken if mask is None else broken & mask).any(-1)


class SampleCount:
    """How many samples of a stream left a block, and how many of them are ``bad``: see :func:`nonfinite`."""

    def __init__(self) -> None:
        self.bad = self.total = 0

    def add(self, output: Tensor, batch: Batch) -> None:
        """Count the samples of ``batch``, whose ``output [batch, tokens, hidden]`` this is."""
        self.total += len(output) if batch.mask is None else int(batch.mask.any(1).sum())
        self.bad += int(nonfinite(output, batch.mask).sum())


def require_few(bad: int, total: int, who: str) -> None:
    """Refuse to go on without ``bad`` of ``total`` samples, which ``who`` turns into NaN or infinity: one, or
    one in a hundred, may be left out.
    """
    if bad and (bad == total or bad > max(1, total // 100)):
        many = "every sample" if bad == total else f"{bad} of {total} samples"
        raise CalibrationError(
            f"{who} turns {many} into NaN or infinity",
            why="what is learned from the others would not hold for such text",
            fix="check the model with `edgepress inspect`, or calibrate on other text",
        )


def finite_samples(batch: Batch) -> Batch:
    """``batch`` with its nonfinite samples out of the mask, and zero wherever a value is not finite."""
    if bool(torch.isfinite(batch.hidden).all()):
        return batch
    bad = nonfinite(batch.hidden, batch.mask).unsqueeze(1)
    real = torch.ones(batch.hidden.shape[:2], dtype=torch.bool, device=batch.hidden.device)
    mask = (real if batch.mask is None else batch.mask) & ~bad
    return batch.masked(mask, torch.where(torch.isfinite(batch.hidden), batch.hidden, 0.0))


def same_mask(batch: Batch, reference: Batch) -> tuple[Batch, Batch]:
    """Both with one mask: of the tokens that count on either side."""
    if batch.mask is None and reference.mask is None:
        return batch, reference
    masks = [side.mask for side in (batch, reference) if side.mask is not None]
    mask = masks[0] & masks[-1]
    return batch.masked(mask), reference.masked(mask)
