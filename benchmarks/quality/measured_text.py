"""How far a model that reads text is from its original, on one text, and which groups lose more by it.

Protocol for decoders: the text's documents are joined by a blank line, tokenised once, and cut into windows
without overlap; each window is run alone, from an empty cache, and every token but its first is predicted.
Tokenizers that begin a text with a BOS token (Gemma, Llama) get it in front of each window, within its
length; SmolLM2 has none. Perplexity, bits per byte, KL and top-1 come from the same
logits of both models. Then both reply to twenty prompts, greedily: ``compare["text"]`` says whether the text
that the subject writes is lost.
For encoders: sentence embeddings, pooled as the model says, on paragraphs, on their halves, which are to
find each other, on texts of known classes, and on rated word pairs. For classifiers: the distribution of
the labels on paragraphs, or on the rows of a ``.jsonl`` file that have a ``label``, which then count as the
right ones. Encoder–decoders: :mod:`.measured_pairs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...compress.text.corpus import Corpus, read_corpus
from ...errors import InputError
from ...files.storage import sha256_json
from ...runtime.session.needs import Needs, available_memory
from ...terminal.progress import Progress
from ..records.record import Measurement, Metric
from ..records.subjects import NamedModel, OpenModel, open_subject
from .held_out_text import require_alike, require_windows
from .known_original import KnownOriginal, cache_of
from .measured_kinds import Measured, MeasuredPart, measured
from .measured_pairs import (
    NEW_TOKENS,
    OF_ORIGINAL,
    answers_in_text,
    chosen_pairs,
    grouped_pairs,
    measured_pairs,
)
from .needs import validate_needs
from .quality_run import QualityRun
from .subgroups.items import grouped_texts
from .subgroups.kept_rows import KeptRows
from .subgroups.measure_slices import FLIPS, chosen_slices, measure_slices, most_flips
from .subgroups.slice_run import Given


@dataclass(frozen=True)
class GivenText:
    """A file or directory, used whole, or else the held-out articles of the demo ``corpus``; ``field`` is the
    key of the text in ``.jsonl`` rows."""

    path: str | Path | None
    corpus: str
    field: str

    @property
    def name(self) -> str:
        """As lines have it."""
        return Path(self.path).name if self.path else f"{self.corpus} held-out"

    def read(self, *, paired: bool) -> Corpus:
        """Raises as :func:`~edgepress.compress.text.corpus.read_corpus`."""
        return read_corpus(str(self.path or self.corpus), field=self.field, split="held-out", paired=paired)


def validate_text(
    subject: NamedModel, against: NamedModel, text: GivenText, sample: MeasuredPart, run: QualityRun
) -> Measurement:
    """:func:`.validate.validate_bundle` of a model that reads text alone."""
    memory = available_memory(run.max_memory)
    corpus, needs = _read(subject, against, text, sample, memory, run.progress)
    if run.device == "cpu":
        run.require(needs)
    opened, original = run.opened(subject, against, partial(open_subject, memory=memory))
    cache = cache_of(original)
    known = KnownOriginal(original, cache)
    measure = measured if original.answering is None else measured_pairs
    result = measure(known if opened is original else opened, known, corpus, sample, run.progress)
    lines = run.lines(opened, original, result, cache, text.name, sample.placement)
    if not sample.slices:
        return run.append(lines)
    kept = KeptRows(run.record, _identity(lines))
    given = _given(original, corpus, sample, result, run.seed)
    found = measure_slices(opened, original, sample.slices, given, kept, run.progress)
    _add_slices(lines[-1], found)
    run.append(lines)
    kept.drop()
    return lines[-1]


def text_needs(
    subject: NamedModel,
    against: NamedModel,
    text: GivenText,
    sample: MeasuredPart,
    max_memory: float | None,
    progress: Progress,
) -> Needs:
    """What :func:`validate_text` needs; refuses what it does."""
    corpus, needs = _read(subject, against, text, sample, available_memory(max_memory), progress)
    if against.kind == "decoder":
        of = {"count": sample.windows, "length": sample.length}
        require_windows(subject, against, corpus.texts(), placement=sample.placement, **of)
    return needs


def _read(
    subject: NamedModel,
    against: NamedModel,
    text: GivenText,
    sample: MeasuredPart,
    memory: int,
    progress: Progress,
) -> tuple[Corpus, Needs]:
    """The ``text``, and what ``sample`` of it needs; of pairs also says where their outputs come from."""
    if subject.kind != against.kind:
        kinds = [one.kind.replace("_", "–") for one in (subject, against)]
        raise InputError(
            f"a model of kind {kinds[0]!r} is compared with one of kind {kinds[1]!r}",
            fix="give the model that it was made from: --against MODEL",
        )
    chosen_slices(sample.slices)
    paired = answers_in_text(against)
    corpus = text.read(paired=paired)
    require_alike(subject, against, corpus.texts(), sample.slices)
    sizes = {"windows": sample.windows, "length": sample.length, "sentences": sample.sentences}
    if paired:
        given = chosen_pairs(corpus, count=sample.sentences, placement=sample.placement)
        sizes |= {"windows": len(given.inputs), "replies": len(given.inputs), "new_tokens": NEW_TOKENS}
        if given.outputs is None:
            progress.note(
                f"{corpus.source} does not say what is to be written: the outputs are {OF_ORIGINAL}, and no "
                "perplexity is measured of these"
            )
    slices = sample.slices
    return corpus, validate_needs(subject, against, **sizes, memory=memory, progress=progress, slices=slices)


def _given(original: OpenModel, corpus: Corpus, sample: MeasuredPart, result: Measured, seed: int) -> Given:
    """What the slices of ``sample`` are taken from."""
    rows = grouped_texts(corpus, original.labels)
    written = grouped_pairs(corpus, sample, result.tokens) if original.answering is not None else []
    return Given(result.tokens, rows, seed, half=sample.half, written=written)


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
