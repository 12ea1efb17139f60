"""``QualityRun``: how a measurement of quality runs here, whatever the models read; and its two lines, the
original's and the subject's, from one pass over one input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...runtime.session.needs import Needs
from ...terminal.progress import Progress
from ..records import record as records
from ..records.answer_cache import AnswerCache
from ..records.image_subjects import ImageSubject
from ..records.record import Measurement
from ..records.sound_subjects import SoundSubject
from ..records.subjects import NamedModel, OpenModel
from ..records.summary import RESAMPLES
from .greedy_text import verdict
from .held_out_text import Placement
from .measured_kinds import Measured

AnySubject = OpenModel | ImageSubject | SoundSubject
Subject = TypeVar("Subject", OpenModel, ImageSubject, SoundSubject)


@dataclass(frozen=True)
class QualityRun:
    """Where torch and the runtime compute, and with how many ``threads``; the ``seed`` of the bootstrap; the
    run file that the lines go to, where there is one, and the ``command`` that they name; GB that may be
    taken.
    """

    device: str
    threads: int | None
    seed: int
    record: Path | None
    command: str
    max_memory: float | None
    progress: Progress

    def require(self, needs: Needs) -> None:
        """Say what a measurement needs; raises OutOfResource where this machine does not have it."""
        self.progress.note(needs.headline(needs.require(self.record or Path(), self.max_memory)))

    def opened(
        self, subject: NamedModel, against: NamedModel, open_one: Callable[..., Subject]
    ) -> tuple[Subject, Subject]:
        """The subject and the original by ``open_one``, which are one where they are called the same."""
        how: dict[str, Any] = {"device": self.device, "threads": self.threads, "progress": self.progress}
        original = open_one(against, **how)
        return (original if subject.name == against.name else open_one(subject, **how)), original

    def lines(
        self,
        subject: Subject,
        original: Subject,
        result: Measured,
        cache: AnswerCache,
        source: str,
        placement: Placement,
    ) -> list[Measurement]:
        """The original's line and the subject's, one where they are one, of what was measured on ``source``;
        says what came from the ``cache``."""
        cache.say(self.progress)
        result.workload.update(kind="quality", text=source, placement=placement)
        both = _lines(subject, original, result, self.seed, self.command, cache.used)
        return both[-1:] if subject is original else both

    def append(self, lines: Sequence[Measurement]) -> Measurement:
        """Write the lines to the run file; returns the subject's."""
        if self.record is not None:
            for line in lines:
                records.append(self.record, line)
        return lines[-1]


def _lines(
    subject: AnySubject,
    original: AnySubject,
    result: Measured,
    seed: int,
    command: str,
    cached: Sequence[str],
) -> list[Measurement]:
    """The original's line and the subject's; ``cached`` is what of the original's came from the cache."""
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
    return [first, second]
