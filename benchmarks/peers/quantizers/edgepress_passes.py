"""edgepress itself: a recipe, applied to the same tokens."""

from __future__ import annotations

from ._contract import Task, Variant

TITLE = "edgepress"
PACKAGES = ()
BUILD: dict[str, str] = {}
ENVIRONMENT: dict[str, str] = {}
DISTRIBUTIONS = ("edgepress", "torch")
SAMPLES, LENGTH = 16, 512
VARIANTS = {f"w{bits}-gptq": Variant("GPTQ", bits) for bits in (4, 3, 2)} | {
    f"w{bits}-rtn": Variant("RTN", bits, calibrated=False) for bits in (4, 3, 2)
}


def quantize(task: Task, variant: str) -> None:
    """Compress into ``output``; the checkpoint is evaluated as it is."""
    from ....compress.api import compress_model

    chosen = VARIANTS[variant]
    compress_model(
        str(task.checkpoint),
        scheme=f"W{chosen.bits}A16",
        group_size=chosen.group_size,
        output=task.output / "checkpoint",
        calibration="wikipedia" if chosen.calibrated else None,
        samples=SAMPLES if chosen.calibrated else None,
        length=LENGTH if chosen.calibrated else None,
    )
