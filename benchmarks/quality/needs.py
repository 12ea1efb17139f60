"""What a validation needs of this machine, from the shapes of both models: nothing of them is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ...compress.costs import LIBRARIES, block_bytes
from ...compress.pipeline.advance import FORWARD, Work, block_weights
from ...compress.rates import measured_rates
from ...runtime.bundle.bundle import Bundle
from ...runtime.engine.batch_decoder import REPLIES_AT_ONCE
from ...runtime.session.needs import Needs
from ...runtime.text.greedy_loops import NEW_TOKENS, PROMPTS
from ...terminal.progress import Progress
from ..records.bundle_subject import multiplications
from ..records.streamed_subject import needs_streaming
from ..records.subjects import NamedModel
from .subgroups.items import Kind, SliceFile, load_slice
from .subgroups.measure_slices import chosen_slices
from .subgroups.measured_items import MOST_TOKENS

_FLOAT = 4
# Copies of a window's logits that scores are taken from, of both models together.
_LOGITS = 6
# Tokens of a paragraph of an encoder, those of the texts that come beside the sentences, and of the replies.
_PARAGRAPH, _BESIDE, _REPLY = 128, 77_000, 160
_SENTENCE = 10  # tokens of one of a slice, about
# Bytes of weights a second while replies are written, some of them side by side: torch reads weights for few
# rows at a third of what the memory gives.
_BYTES = 1.2e10


@dataclass(frozen=True)
class _Model:
    """Bytes of the files, of the loaded weights, and how many weights a token is multiplied by, those of an
    embedding left out and faster products counted as fewer; sizes of a token.

    ``passing`` are bytes of a model that is read block by block, while all of the text goes through it: what
    is ``loaded`` of it after that is its head.
    """

    files: int
    loaded: int
    weights: float
    passing: int = 0
    vocabulary: int = 0
    hidden: int = 0


def validate_needs(
    subject: str | Path | NamedModel,
    against: str | Path | NamedModel,
    *,
    windows: int,
    length: int,
    sentences: int,
    memory: int,
    progress: Progress,
    slices: Sequence[str] = (),
    replies: int = len(PROMPTS),
    new_tokens: int = NEW_TOKENS,
) -> Needs:
    """What :func:`~edgepress.benchmarks.quality.validate.validate_bundle` needs.

    ``memory`` are the bytes that may be taken: they decide whether a model is read block by block. A decoder
    writes so many ``replies``, of ``new_tokens`` at most.
    """
    named = {
        str(model): _model(NamedModel.of(model, progress), memory, windows * length)
        for model in ((against,) if str(subject) == str(against) else (against, subject))
    }
    models = list(named.values())
    decodes = max(model.vocabulary for model in models) > 0
    replies = 0 if any(model.passing for model in models) else replies  # one that is streamed writes none
    tokens = windows * length + replies * _REPLY if decodes else sentences * _PARAGRAPH + _BESIDE
    tokens += _slice_tokens(slices, "decoder" if decodes else "encoder")
    at_once = length if decodes else 32 * _PARAGRAPH
    widest = max(model.hidden for model in models)
    states = _FLOAT * at_once * max(16 * widest, _LOGITS * max(model.vocabulary for model in models))
    fixed = LIBRARIES + states
    steps = new_tokens * -(-replies // REPLIES_AT_ONCE) if decodes else 0
    writing = steps * sum(model.loaded for model in models) / _BYTES
    products = sum(FORWARD * tokens * model.weights for model in models)
    rates, work = measured_rates(), Work(products, stored=sum(model.files for model in models))
    bundles = fixed + 2 * min(model.loaded for model in models)
    together = max(sum(model.loaded for model in models), *(model.passing for model in models))
    return Needs(
        "validate",
        {name: model.files for name, model in named.items()},
        fixed + together,
        1 << 20,
        rates.start + rates.seconds(work) + writing,
        (("--against a bundle of the original, with as many bits", bundles),),
    )


def _slice_tokens(names: Sequence[str], kind: Kind) -> int:
    """About how many tokens of their own a model of ``kind`` reads for the slices ``names``."""
    files = (load_slice(name) for name in chosen_slices(names))
    return sum(_tokens(file) for file in files if kind in file.kinds)


def _tokens(file: SliceFile) -> int:
    if file.of == "texts":
        return MOST_TOKENS * len(file.texts(0))
    return 2 * _SENTENCE * len(file.choices(0)) if file.of == "choices" else 0


def _model(model: NamedModel, memory: int, tokens: int) -> _Model:
    if model.bundle is not None:
        return _bundle(model.bundle)
    source = model.source
    anatomy = source.anatomy
    weights = sum(map(prod, source.shapes.values()))
    vocabulary = 0 if anatomy.kind == "encoder" else anatomy.vocab_size
    multiplied = sum(map(block_weights, anatomy.blocks)) + vocabulary * anatomy.hidden_size
    largest = max(map(prod, source.shapes.values()))
    files = sum(map(source.reader.nbytes, source.reader.shapes))
    loaded, passing = _FLOAT * (weights + largest), 0
    if needs_streaming(source, memory):
        states = _FLOAT * tokens * anatomy.hidden_size
        loaded = source.outer_bytes() + states
        passing = loaded + max(map(block_bytes, anatomy.blocks)) + _FLOAT * largest
    return _Model(files, loaded, multiplied, passing, vocabulary, anatomy.hidden_size)


def _bundle(bundle: Bundle) -> _Model:
    files = bundle.disk_bytes
    vocabulary = bundle.decoder.vocab_size if bundle.kind == "decoder" else 0
    vocabulary = bundle.encoder_decoder.vocab_size if bundle.kind == "encoder_decoder" else vocabulary
    return _Model(files, files + files // 8, multiplications(bundle), vocabulary=vocabulary)
