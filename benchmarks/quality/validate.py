"""``validate_bundle``: the quality of a bundle or checkpoint against the original, as one measurement line.

Models that read text: :mod:`.measured_text`; that read images: :mod:`.measured_images`; that hear:
:mod:`.measured_sounds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ...errors import InputError
from ...files.third_party_errors import shortages_are_typed
from ...runtime.session.needs import Needs
from ...terminal.progress import Progress, Silent
from ..records import record as records
from ..records.image_subjects import reads_images
from ..records.record import Measurement
from ..records.sound_subjects import reads_sounds
from ..records.subjects import NamedModel
from .held_out_text import Placement
from .measured_images import FileSample, image_needs, shown_images, validate_images
from .measured_kinds import DEFAULT_LENGTH, DEFAULT_SENTENCES, DEFAULT_WINDOWS, MeasuredPart
from .measured_sounds import shown_sounds, sound_needs, validate_sounds
from .measured_text import GivenText, text_needs, validate_text
from .quality_run import QualityRun

DEFAULT_CORPUS = "wikipedia"


@shortages_are_typed()
def validate_bundle(
    subject: str | Path,
    against: str | Path,
    *,
    text: str | Path | None = None,
    corpus: str = DEFAULT_CORPUS,
    field: str = "text",
    windows: int = DEFAULT_WINDOWS,
    length: int = DEFAULT_LENGTH,
    sentences: int = DEFAULT_SENTENCES,
    placement: Placement = "spread",
    slices: Sequence[str] = (),
    half: int | None = None,
    replies: bool = True,
    device: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    record: str | Path | None = None,
    command: str = "",
    max_memory: float | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure ``subject`` against the original on text that it was not calibrated with.

    Args:
        subject, against: a bundle directory, a checkpoint directory, a ``.gguf`` file or a demo name each.
        text: a file or directory, used whole; else the held-out articles of the demo ``corpus``.
        field: key of the text in ``.jsonl`` rows, whose ``label`` a classifier is held against, and whose
            ``target`` (or ``output``) what an encoder–decoder writes.
        windows, length: decoders: number of windows and tokens in each, and in inputs and outputs at most.
        sentences: encoders: number of paragraphs, or of rows with labels; encoder–decoders: of pairs.
        placement: ``spread`` over the text, or the ``first`` ones.
        slices: names of ``benchmarks/quality/slices``, or ``all``: who is harmed more than the others, into
            ``compare["slices"]``. ``half``: on every second text or choice that groups share alone, from the
            first (0) or the second (1).
        replies: decoders: whether both write replies to prompts as well, which takes as long again.
        device, threads: where and how wide torch and the runtime compute.
        seed: of the bootstrap.
        record: a run file to which the line is appended, and before it the original's own line.
        command: what reproduces the measurement, for the record.
        max_memory: GB that it may need; never more than what is free.

    Returns:
        The line; the original's numbers and the paired differences are in ``compare``.

    Raises:
        InputError: a decoder against an encoder, tokenizers or labels that differ, too little text.
        GateFailed: logits or embeddings that are not finite.
        OutOfResource: it does not fit this machine; found before a model is loaded.
        EdgepressError: as :func:`~edgepress.benchmarks.records.subjects.open_subject` and
            :func:`~edgepress.compress.text.corpus.read_corpus`.
    """
    if record is not None:
        records.refuse_foreign(record)
    progress = progress or Silent()
    path = None if record is None else Path(record)
    run = QualityRun(device, threads, seed, path, command, max_memory, progress)
    asked, origin = NamedModel(subject, progress), NamedModel(against, progress)
    files = FileSample(text, sentences, placement)
    read = _read_by_both(asked, origin, slices)
    if read == "sounds":
        return validate_sounds(asked, origin, files, run, replies=replies)
    if read == "images":
        return validate_images(asked, origin, files, run)
    sample = MeasuredPart(windows, length, sentences, placement, replies, slices, half)
    return validate_text(asked, origin, GivenText(text, corpus, field), sample, run)


def plan_validation(
    subject: str | Path,
    against: str | Path,
    *,
    text: str | Path | None = None,
    corpus: str = DEFAULT_CORPUS,
    field: str = "text",
    windows: int = DEFAULT_WINDOWS,
    length: int = DEFAULT_LENGTH,
    sentences: int = DEFAULT_SENTENCES,
    slices: Sequence[str] = (),
    max_memory: float | None = None,
    progress: Progress | None = None,
) -> Needs:
    """What :func:`validate_bundle` needs; raises what it does before it loads a model."""
    progress = progress or Silent()
    asked, origin = NamedModel(subject, progress), NamedModel(against, progress)
    read = _read_by_both(asked, origin, slices)
    if read == "sounds":
        return sound_needs(asked, origin, shown_sounds(text, sentences, "spread"), max_memory, progress)
    if read == "images":
        return image_needs(asked, origin, shown_images(text, sentences, "spread"), max_memory, progress)
    sample = MeasuredPart(windows, length, sentences, slices=slices)
    return text_needs(asked, origin, GivenText(text, corpus, field), sample, max_memory, progress)


_Read = Literal["sounds", "images", "text"]
_READS: dict[_Read, tuple[str, str]] = {
    "sounds": ("hears sounds", "hears nothing"),
    "images": ("reads images", "reads no images"),
    "text": ("reads text", "reads no text"),
}


def _read_by(model: NamedModel) -> _Read:
    if reads_sounds(model):
        return "sounds"
    return "images" if reads_images(model) else "text"


def _read_by_both(subject: NamedModel, original: NamedModel, slices: Sequence[str]) -> _Read:
    """What the ``original`` reads; raises InputError where the ``subject`` does not, or where it is no text
    and there are ``slices``."""
    read, own = _read_by(original), _read_by(subject)
    does, does_not = _READS[read]
    if own != read:
        raise InputError(
            f"{subject} {_READS[own][0]} and {does_not}",
            why=f"it is of kind {subject.kind.replace('_', '–')!r}",
            fix="compare with the model that it was made from",
        )
    if slices and read != "text":
        raise InputError(f"slices are of text, and this model {does}", fix="leave --slices out")
    return read
