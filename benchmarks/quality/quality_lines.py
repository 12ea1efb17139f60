"""The two lines of a quality measurement, the original's and the subject's, from one pass over one input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import InputError
from ..records.image_subjects import ImageSubject
from ..records.record import Measurement
from ..records.sound_subjects import SoundSubject
from ..records.subjects import OpenModel
from ..records.summary import RESAMPLES
from .greedy_text import verdict
from .measured_kinds import Measured

AnySubject = OpenModel | ImageSubject | SoundSubject


def require_labels(subject: AnySubject, original: AnySubject) -> None:
    """Raise InputError where the two have other labels, or read them otherwise."""
    if (subject.labels, subject.label_form) != (original.labels, original.label_form):
        raise InputError(
            f"a model with the labels {_named(subject)} is compared with one with {_named(original)}",
            fix="compare with the model that it was made from",
        )


def _named(model: AnySubject) -> str:
    return ", ".join(model.labels) or "none"


def lines_of(
    subject: AnySubject,
    original: AnySubject,
    result: Measured,
    seed: int,
    command: str,
    cached: Sequence[str] = (),
) -> tuple[Measurement, Measurement]:
    """The original's line and the subject's, from one pass over the same input; ``cached`` is what of the
    original's came from the cache."""
    baseline = original.describe()
    of_encoder = "texts" if original.labels else "sentences and word pairs"
    if "images" in result.workload:
        of_encoder = "images"
    unit = "windows and replies" if original.kind == "decoder" else of_encoder
    unit = next((one for one in ("sounds", "pairs") if one in result.workload), unit)
    protocol: dict[str, Any] = {
        "interval": f"percentile bootstrap over {unit}, differences paired",
        "resamples": RESAMPLES,
        "seed": seed,
    }
    if cached:
        protocol["original_from_cache"] = ", ".join(cached)
    shared: dict[str, Any] = {"command": command, "workload": result.workload, "protocol": protocol}
    own = {name: scores.of_original(seed) for name, scores in result.scores.items()}
    first = Measurement(subject=baseline, runtime=original.runtime, metrics=own, **shared)
    second = Measurement(
        **shared,
        subject=subject.describe(),
        baseline=baseline,
        runtime=subject.runtime,
        samples={name: scores.samples() for name, scores in result.scores.items()},
        metrics={name: scores.of_subject(seed) for name, scores in result.scores.items()},
        answers=result.answers,
        compare={
            "original": {
                name: metric.model_dump(exclude_defaults=True, mode="json") for name, metric in own.items()
            },
            "delta": {name: scores.delta(seed) for name, scores in result.scores.items()},
            "text": verdict(result.scores, seed),
        },
    )
    return first, second
