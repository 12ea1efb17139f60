"""What a pass that learned leaves: the model with its new parameters, block by block, and its history."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..numbers.scheme import Scheme
from ..pipeline.block import LayerStatus
from ..pipeline.block_shards import BlockWriter
from ..pipeline.stage import Stage, StageResult
from .students.student import Student
from .train_state import TrainState
from .trainer import Trainer


def write_learned(
    student: Student,
    stage: Stage,
    train_state: TrainState,
    trainer: Trainer,
    measure: str,
    statuses_of: Callable[[Student, Sequence[str]], list[LayerStatus]],
) -> StageResult:
    """Write the parts of the model that ``student`` has become; of several processes the first writes.

    Args:
        measure: how the held-out loss is called.
        statuses_of: one for each of some layers, which are not spread, that the pass changed in kind.
    """
    schemes: dict[str, Scheme] = student.schemes()
    writer = BlockWriter(stage.source, schemes, stage.directory)
    parts, statuses = [], []
    for index, block in enumerate(stage.source.anatomy.blocks):
        with student.whole(index):
            if stage.processes.first:
                names = [linear.name for linear in block.linears() if linear.name in schemes]
                quantized = {name: student.tensor(name) for name in names}
                masks = stage.masks.of(block, stage.device)
                parts.append(writer.part(block, quantized, student.values(block), masks))
                statuses += statuses_of(student, names)
    if not stage.processes.first:
        return StageResult([], [], {}, {})
    return StageResult(
        [*parts, writer.outer(student.values(None))],
        statuses,
        schemes,
        writer.forms,
        details=_details(student, train_state, measure)
        | {"precision": trainer.precision, "held_out_tokens": trainer.held_out_tokens},
    )


def _details(student: Student, train_state: TrainState, measure: str) -> dict[str, Any]:
    """What the manifest keeps of the training run; ``tokens`` go with ``held_out``."""
    finite = [
        (pair, tokens)
        for pair, tokens in zip(train_state.held_out, train_state.tokens, strict=True)
        if math.isfinite(pair[1])
    ]
    return {
        "measure": measure,
        "held_out": [list(pair) for pair, _ in finite],
        "tokens": [tokens for _, tokens in finite],
        "kept": train_state.best[0],
        "stopped": train_state.stopped,
        "retreats": train_state.rollbacks,
        "skipped": train_state.skipped,
        "parameters": sum(parameter.numel() for parameter in student.changes()),
    }
