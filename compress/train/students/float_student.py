"""The student of ``recover`` and ``distill``: its float linears, norms and biases learn."""

from __future__ import annotations

from collections.abc import Sequence

from ....errors import TrainingError
from ...model.block_anatomy import Linear
from ...pipeline.stage import Stage
from .student import Student


def float_student(
    stage: Stage,
    linears: Sequence[Linear],
    rank: int | None = None,
    seed: int = 0,
    *,
    embedding: bool = False,
) -> Student:
    """The model of ``stage`` with the weights of ``linears``, and all norms and biases, free; with ``rank``
    the weights change by a product of that rank. With ``embedding`` that learns too, and the head.

    Raises:
        TrainingError: one of ``linears`` is quantized, or there is nothing to learn.
    """
    quantized = [linear.name for linear in linears if linear.name in stage.source.schemes]
    if quantized:
        raise TrainingError(
            f"{len(quantized)} of the layers that should learn are quantized, the first is {quantized[0]}",
            why="codes are no float weights, and do not move here",
            fix="do this before quantizing, ignore them, or use tune (scales) or qat (codes)",
        )
    student = Student(stage.source, stage.device)
    student.learn_weights(linears, stage.masks, rank, seed)
    student.learn(("norms", "biases", *(("embedding",) if embedding else ())))
    if not student.learned:
        raise TrainingError(
            "the model has no norms or biases to learn", fix="let its linears learn: train: all"
        )
    return student
