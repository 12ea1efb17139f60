"""How far a model of images is from its original: cosine and nearest neighbours of its embeddings, or
agreement of its labels, of the same image files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...compress.text.drawn_files import distinct_files
from ...errors import InputError
from ...files.storage import sha256_file, sha256_json
from ...runtime.images.image_file import image_files
from ...runtime.session.needs import Needs, available_memory
from ...terminal.progress import Progress
from ..records.answer_cache import AnswerCache
from ..records.image_subjects import ImageSubject, Vectors, open_image_subject
from ..records.record import Measurement
from ..records.subjects import NamedModel
from .accuracy import require_finite
from .embedding_scores import of_vectors
from .held_out_text import Placement, chosen, require_labels
from .known_original import cache_of, known_rows
from .measured_kinds import Measured
from .metrics import METRICS, NEIGHBOURS, metrics_of, neighbour_overlap
from .needs import validate_needs
from .quality_run import QualityRun
from .scores import Scores, log_softmax
from .token_damage import require_same_width

LEAST = 2  # images, so that there are neighbours


@dataclass(frozen=True)
class FileSample:
    """At most so many of the images or sounds in a ``folder``, spread over it or the first ones."""

    folder: str | Path | None
    count: int
    placement: Placement = "spread"

    @property
    def name(self) -> str:
        """Of the folder, as lines have it."""
        return Path(str(self.folder)).name


def validate_images(
    subject: NamedModel, against: NamedModel, sample: FileSample, run: QualityRun
) -> Measurement:
    """:func:`.validate.validate_bundle` of a model that reads images."""
    require_labels(subject, against)
    files = shown_images(sample.folder, sample.count, sample.placement)
    if run.device == "cpu":
        run.require(image_needs(subject, against, files, run.max_memory, run.progress))
    opened, original = run.opened(subject, against, open_image_subject)
    cache = cache_of(original)
    result = measured_images(opened, original, files, cache, run.progress)
    return run.append(run.lines(opened, original, result, cache, sample.name, sample.placement))


def image_needs(
    subject: NamedModel,
    against: NamedModel,
    files: Sequence[Path],
    max_memory: float | None,
    progress: Progress,
) -> Needs:
    """What :func:`validate_images` needs: an image is about as many tokens as a paragraph. Refuses what it
    does."""
    require_labels(subject, against)
    memory = available_memory(max_memory)
    return validate_needs(
        subject, against, windows=1, length=1, sentences=len(files), memory=memory, progress=progress
    )


def shown_images(folder: str | Path | None, count: int, placement: Placement) -> list[Path]:
    """At most ``count`` distinct image files in ``folder``, spread over it or the first ones."""
    if folder is None:
        raise InputError(
            "a model that reads images is compared on images, and none are given",
            fix="pass --images FOLDER, with images that it was not calibrated with",
        )
    found = sorted(distinct_files(image_files(Path(folder))).values())
    if min(len(found), count) < LEAST:
        raise InputError(f"{folder} has {len(found)} distinct images, {LEAST} are the least", fix="give more")
    return [found[index] for index in chosen(len(found), min(count, len(found)), placement)]


def measured_images(
    subject: ImageSubject,
    original: ImageSubject,
    files: Sequence[Path],
    cache: AnswerCache,
    progress: Progress,
) -> Measured:
    """Run both models on ``files``; ``subject`` may be ``original`` itself, whose ``cache`` it is."""
    what = "logits" if original.labels else "embeddings"
    hashes = list(map(sha256_file, files))
    with progress.task("validating", 2) as task:
        theirs = known_rows(cache, what, hashes, len(files), lambda: original.answers(files))
        task.advance(1)
        mine = theirs if subject is original else subject.answers(files)
        task.advance(1)
    require_same_width(what, mine, theirs)
    require_finite("the original", theirs, what)
    require_finite("the compressed model", mine, what)
    scores = _of_labels(original, mine, theirs) if original.labels else _of_embeddings(mine, theirs)
    return Measured(scores, {"images": len(files), "images_sha256": sha256_json(hashes)})


def _of_embeddings(mine: Vectors, theirs: Vectors) -> dict[str, Scores]:
    scores = of_vectors(mine, theirs)
    if len(mine) > NEIGHBOURS + 1:  # else all others are the nearest
        ours, own = (neighbour_overlap((rows, rows), (theirs, theirs))[:, None] for rows in (mine, theirs))
        scores["neighbour_overlap"] = Scores(METRICS["neighbour_overlap"], ours, own)
    return scores


def _of_labels(original: ImageSubject, mine: Vectors, theirs: Vectors) -> dict[str, Scores]:
    ours, own = (
        log_softmax(np.concatenate([original.label_form.rows(row) for row in rows]))
        for rows in (mine, theirs)
    )
    scores = {}
    for name, metric in metrics_of("labels").items():
        of_mine, of_theirs = (metric.each(rows, own, None) for rows in (ours, own))
        if of_mine is not None:
            shape = len(mine), -1
            averages = [values.reshape(shape).mean(1)[:, None] for values in (of_mine, of_theirs)]
            scores[name] = Scores(metric, *averages)
    return scores
