"""edgepress itself: ``distill`` and ``qat`` on the same sequences, an eighth of which it holds out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..contract import TrainingTask

if TYPE_CHECKING:
    from .....compress.text.calibration import Calibration

TITLE = "edgepress"
PACKAGES = ()
DISTRIBUTIONS = ("edgepress", "torch")
# Beside the KL, how far the last states are from the teacher's: they say more of a token than its successor.
STATES = {"forward_kl": 1.0, "states": 0.3}
VARIANTS = {
    "distill": "distill",
    "states": "distill, forward_kl + 0.3 states",
    "w4": "rtn, then qat, W4A16-g64",
}


def train(task: TrainingTask, variant: str) -> None:
    """The pass alone, with as many steps as the others have; ``learning_rate`` is in its own units."""
    import torch

    from .....compress.model.weights import WeightSource
    from .....compress.passes.distill import Distill
    from .....compress.passes.qat import Qat
    from .....compress.pipeline.block_shards import Masks
    from .....compress.pipeline.stage import Stage, assemble
    from .....terminal.progress import Silent

    sequences = task.tokens()
    rows_of = len(sequences[0])
    training = {
        "tokens": len(sequences) * rows_of,
        "batch_tokens": task.rows * rows_of,
        "micro_batch_tokens": task.rows * rows_of,
        "learning_rate": task.learning_rate,
    }
    work = task.output / "work"
    work.mkdir(exist_ok=True)
    source = WeightSource.open(task.checkpoint)
    chosen: Distill | Qat
    if variant == "w4":
        chosen = Qat.model_validate({"training": training, "scheme": "W4A16-g64"})
    else:
        losses = STATES if variant == "states" else {}
        # Of all logits, as the others.
        training["top_k"] = source.anatomy.vocab_size
        chosen = Distill.model_validate({"training": training, "embedding": True, "losses": losses})
    stage = Stage(
        source,
        WeightSource.open(task.teacher),
        work,
        _calibration(sequences, task.rows),
        Masks(),
        torch.device("cpu"),
        Silent(),
    )
    assemble(source, chosen.apply(stage), task.result)


def _calibration(sequences: list[list[int]], rows: int) -> Calibration:
    import torch

    from .....compress.text.calibration import Calibration
    from .....compress.text.token_batch import TokenBatch

    batches = []
    for start in range(0, len(sequences), rows):
        ids = torch.tensor(sequences[start : start + rows])
        batches.append(TokenBatch(ids, torch.ones_like(ids)))
    length, count = len(sequences[0]), len(sequences)
    read = (0, count, length, count * length)  # seed, samples, length, effective tokens
    return Calibration(
        tuple(batches), "sequences", *read, documents=1, duplicates=0, truncated=0, chat=False, sha256=""
    )
