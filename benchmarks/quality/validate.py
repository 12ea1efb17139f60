"""``validate_bundle``: the quality of a bundle or checkpoint against the original, as one measurement line.

Protocol for decoders: the text's documents are joined by a blank line, tokenised once, and cut into windows
without overlap; each window is run alone, from an empty cache, and every token but its first is predicted.
Tokenizers that begin a text with a BOS token (Gemma, Llama) get it in front of each window, within its
length; SmolLM2 has none. Perplexity, bits per byte, KL and top-1 come from the same
logits of both models. Then both reply to twenty prompts, greedily: ``compare["text"]`` says whether the text
that the subject writes is lost.
For encoders: sentence embeddings, pooled as the model says, on paragraphs, on their halves, which are to
find each other, on texts of known classes, and on rated word pairs. For classifiers: the distribution of
the labels on paragraphs, or on the rows of a ``.jsonl`` file that have a ``label``, which then count as the
right ones. Models that read images: :mod:`.measured_images`; that hear:
:mod:`.measured_sounds`; encoder–decoders: :mod:`.measured_pairs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...compress.text.corpus import Corpus, read_corpus
from ...errors import InputError
from ...foreign import shortages_are_typed
from ...runtime.engine.label_form import LabelForm
from ...runtime.session.needs import Needs, available_memory
from ...storage import sha256_json
from ...terminal import Progress, Silent
from ..records import record as records
from ..records.image_subjects import reads_images
from ..records.named_model import NamedModel
from ..records.record import Measurement, Metric
from ..records.sound_subjects import reads_sounds
from ..records.subjects import OpenModel, open_subject
from .accuracy import is_cut
from .held_out_pairs import answers_in_text, chosen_pairs, grouped_pairs
from .held_out_text import Placement
from .known_answers import cache_of
from .known_original import KnownOriginal
from .measured_images import ImageSample, image_needs, shown_images, validate_images
from .measured_kinds import (
    DEFAULT_LENGTH,
    DEFAULT_SENTENCES,
    DEFAULT_WINDOWS,
    MeasuredPart,
    measured,
)
from .measured_pairs import NEW_TOKENS, OF_ORIGINAL, measured_pairs
from .measured_sounds import shown_sounds, sound_needs, validate_sounds
from .needs import validate_needs
from .quality_lines import lines_of, require_labels
from .subgroups.items import grouped_texts
from .subgroups.kept_rows import KeptRows
from .subgroups.measure_slices import FLIPS, chosen_slices, measure_slices, most_flips
from .subgroups.slice_run import Given

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
    progress = progress or Silent()
    if record is not None:
        records.refuse_foreign(record)
    asked, origin = NamedModel(subject, progress), NamedModel(against, progress)
    if reads_sounds(origin):
        sounds = ImageSample(text, sentences, placement, seed, record, command)
        to_run = (device, threads, slices, max_memory, progress)
        return validate_sounds(subject, against, sounds, *to_run, replies=replies)
    if reads_images(origin):
        shown = ImageSample(text, sentences, placement, seed, record, command)
        return validate_images(subject, against, shown, device, threads, slices, max_memory, progress)
    chosen_slices(slices)
    paired = answers_in_text(origin)
    read = read_corpus(str(text or corpus), field=field, split="held-out", paired=paired)
    sample = MeasuredPart(windows, length, sentences, placement, bool(slices), replies)
    memory = available_memory(max_memory)
    needs = _needs(asked, origin, read, sample, paired, memory, slices, progress)
    if device == "cpu":
        progress.note(needs.headline(needs.require(Path(record or "."), max_memory)))
    opening: dict[str, Any] = {"device": device, "threads": threads, "memory": memory, "progress": progress}
    original = open_subject(origin, **opening)
    same = str(subject) == str(against)
    opened = original if same else open_subject(asked, **opening)
    _require_alike(opened, original, read.texts())
    if slices and original.label_form != LabelForm():
        raise InputError(
            "slices are not measured of a model that labels tokens, or gives a text several labels",
            fix="leave --slices out",
        )
    source = Path(text).name if text else f"{corpus} held-out"
    measure = measured if original.answering is None else measured_pairs
    cache = cache_of(original)
    known = KnownOriginal(original, cache)
    result = measure(known if same else opened, known, read, sample, progress)
    cache.say(progress)
    result.workload.update(kind="quality", text=source, placement=placement)
    lines = lines_of(opened, original, result, seed, command, cache.used)
    if slices:
        rows = grouped_texts(read, original.labels)
        written = grouped_pairs(read, sample, result.tokens) if original.answering is not None else []
        given = Given(result.tokens, rows, seed, half=half, written=written)
        kept = KeptRows(None if record is None else Path(record), _identity(lines))
        _add_slices(lines[-1], measure_slices(opened, original, slices, given, kept, progress))
    if record is not None:
        for line in lines[-1:] if same else lines:
            records.append(record, line)
        if slices:
            kept.drop()
    return lines[-1]


def _identity(lines: Sequence[Measurement]) -> str:
    """What a killed run of slices must share with the one that goes on: both models and what runs them."""
    return sha256_json([[line.subject.manifest_sha256, line.runtime] for line in lines])


def _add_slices(line: Measurement, found: dict[str, Any]) -> None:
    """Add the report of slices to ``line``, and the share of the group that changed most answers, where
    answers are counted."""
    line.compare = {**(line.compare or {}), "slices": found}
    flips = most_flips(found)
    if flips is not None:
        group, share = flips
        line.metrics[FLIPS] = Metric(value=share, unit="fraction", n=group["items"], better="lower")


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
    if reads_sounds(origin):
        files = shown_sounds(text, sentences, "spread")
        return sound_needs(subject, against, files, max_memory, progress)
    if reads_images(origin):
        files = shown_images(text, sentences, "spread")
        return image_needs(subject, against, files, max_memory, progress)
    paired = answers_in_text(origin)
    read = read_corpus(str(text or corpus), field=field, split="held-out", paired=paired)
    chosen_slices(slices)
    sample, memory = MeasuredPart(windows, length, sentences), available_memory(max_memory)
    return _needs(asked, origin, read, sample, paired, memory, slices, progress)


def _needs(
    subject: NamedModel,
    against: NamedModel,
    corpus: Corpus,
    sample: MeasuredPart,
    paired: bool,
    memory: int,
    slices: Sequence[str],
    progress: Progress,
) -> Needs:
    """What ``sample`` of the text ``corpus`` needs; of pairs also says where their outputs come from."""
    sizes = {"windows": sample.windows, "length": sample.length, "sentences": sample.sentences}
    if paired:
        given = chosen_pairs(corpus, count=sample.sentences, placement=sample.placement)
        sizes |= {"windows": len(given.inputs), "replies": len(given.inputs), "new_tokens": NEW_TOKENS}
        if given.outputs is None:
            progress.note(
                f"{corpus.source} does not say what is to be written: the outputs are {OF_ORIGINAL}, and no "
                "perplexity is measured of these"
            )
    return validate_needs(subject, against, **sizes, memory=memory, progress=progress, slices=slices)


def _require_alike(subject: OpenModel, original: OpenModel, texts: list[str]) -> None:
    kinds = [one.kind if one.answering is None else "encoder–decoder" for one in (subject, original)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"a model of kind {kinds[0]!r} is compared with one of kind {kinds[1]!r}",
            fix="give the model that it was made from: --against MODEL",
        )
    require_labels(subject, original)
    if is_cut(subject, original):
        return
    probe = "\n\n".join(texts)[:4000]
    if subject.tokenizer.encode(probe) != original.tokenizer.encode(probe):
        raise InputError(
            "the two models split the same text into different tokens",
            why="logits at a position would answer different questions",
            fix="compare with the model that it was made from",
        )
