"""Running calibration batches through one block: collecting what passes ask for, and making the next block's
inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CalibrationError, OutOfResource
from .anatomy import BlockAnatomy
from .statistics import STATISTICS, Statistic


class _Collected(Exception):
    pass


class Batch:
    """One calibration batch at the entrance of a block.

    ``hidden [batch, tokens, hidden]``; ``arguments`` are the block's keyword arguments; ``mask [batch,
    tokens]`` bool marks real tokens, or None when all are.
    """

    def __init__(self, hidden: Tensor, arguments: Mapping[str, Any], mask: Tensor | None) -> None:
        self.hidden, self.arguments, self.mask = hidden, arguments, mask

    def split(self, parts: int) -> Iterator[Batch]:
        """The batch in up to ``parts`` pieces along its first axis."""
        size = self.hidden.shape[0]
        step = max(1, -(-size // parts))
        for start in range(0, size, step):
            rows = slice(start, start + step)

            def cut(value: Any, rows: slice = rows) -> Any:
                if isinstance(value, Tensor):
                    return value[rows] if value.ndim and value.shape[0] == size > 1 else value
                return tuple(cut(item, rows) for item in value) if isinstance(value, tuple) else value

            arguments = {name: cut(value) for name, value in self.arguments.items()}
            yield Batch(self.hidden[rows], arguments, None if self.mask is None else self.mask[rows])


def run_block(module: nn.Module, batch: Batch) -> Tensor:
    """The block's output ``[batch, tokens, hidden]``."""
    with torch.no_grad():
        output = module(batch.hidden, **batch.arguments)
    return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]


class Smaller:
    """How many pieces a batch is run in: doubled when the device runs out of memory, and said aloud once."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.parts, self.note = 1, note

    def after(self, error: torch.OutOfMemoryError, batch_size: int) -> None:
        """React to an out-of-memory error.

        Raises:
            OutOfResource: a single sequence does not fit.
        """
        if self.parts >= batch_size:
            raise OutOfResource(
                "one calibration sequence does not fit the device's memory",
                why=str(error).splitlines()[0],
                fix="use a smaller --length or --device cpu",
            ) from error
        self.parts *= 2
        self.note(f"the device ran out of memory: batches are now run in {self.parts} pieces")


def collect(
    module: nn.Module,
    linears: Mapping[str, nn.Linear],
    anatomy: BlockAnatomy,
    wanted: Mapping[str, tuple[str, ...]],
    batches: Callable[[], Iterator[Batch]],
    smaller: Smaller,
) -> dict[str, dict[str, Tensor]]:
    """Statistics of the inputs of linears, by linear and statistic name; linears with shared inputs share
    tensors.

    ``wanted`` maps a linear to the statistics asked for. Starts over with smaller pieces when memory runs
    out, so that nothing is counted twice.
    """
    while True:
        try:
            return _collect(module, linears, anatomy, wanted, batches, smaller.parts)
        except torch.OutOfMemoryError as error:
            smaller.after(error, max(batch.hidden.shape[0] for batch in batches()))


def _collect(
    module: nn.Module,
    linears: Mapping[str, nn.Linear],
    anatomy: BlockAnatomy,
    wanted: Mapping[str, tuple[str, ...]],
    batches: Callable[[], Iterator[Batch]],
    parts: int,
) -> dict[str, dict[str, Tensor]]:
    groups = [group for group in anatomy.inputs() if any(linear.name in wanted for linear in group)]
    taps: list[dict[str, Statistic]] = []
    mask: Tensor | None = None
    handles = []
    for index, group in enumerate(groups):
        needed = sorted({name for linear in group for name in wanted.get(linear.name, ())})
        module_in = linears[group[0].name]
        tap: dict[str, Statistic] = {
            name: STATISTICS[name](group[0].in_features, module_in.weight.device) for name in needed
        }
        taps.append(tap)

        def hook(
            _: nn.Module, inputs: tuple[Tensor], tap: dict[str, Statistic] = tap, index: int = index
        ) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            rows = rows if mask is None else rows[mask.reshape(-1)]
            for statistic in tap.values():
                statistic.update(rows)
            if index == len(groups) - 1:
                raise _Collected

        handles.append(module_in.register_forward_pre_hook(hook))
    try:
        for batch in batches():
            for piece in batch.split(parts):
                mask = piece.mask
                try:
                    run_block(module, piece)
                except _Collected:
                    continue
    finally:
        for handle in handles:
            handle.remove()
    values = [{name: statistic.value() for name, statistic in tap.items()} for tap in taps]
    return {linear.name: values[i] for i, group in enumerate(groups) for linear in group}


def propagate(module: nn.Module, batch: Batch, smaller: Smaller, where: str) -> Tensor:
    """The block's output for ``batch``, in pieces when memory is short.

    Raises:
        CalibrationError: the output has non-finite values; names the block and the samples of the batch.
    """
    while True:
        try:
            output = torch.cat([run_block(module, piece) for piece in batch.split(smaller.parts)])
            break
        except torch.OutOfMemoryError as error:
            smaller.after(error, batch.hidden.shape[0])
    finite = torch.isfinite(output).flatten(1).all(1)
    if not bool(finite.all()):
        bad = [index for index, good in enumerate(finite.tolist()) if not good]
        raise CalibrationError(
            f"{where} turns samples {bad} of a batch into NaN or infinity",
            fix="check the model with `edgepress inspect`, or calibrate on other text",
        )
    return output
