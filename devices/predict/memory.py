"""What a model will take of memory and disk on any machine, from its sizes."""

from __future__ import annotations

from ...runtime.engine.decoder import PREFILL_CHUNK
from ...runtime.engine.encoder_batches import TOKENS_PER_CORE, WORTH
from .prediction import Quantity
from .run import Run
from .subject import Subject
from .workload import PredictedWork

BAND = 0.10
# Of models whose predictions nobody has compared with a measurement yet.
GUESS = 0.5
# Of a process that can open a bundle, where no table says it.
RESIDENT = 70_000_000
# Of a tokenizer in memory: its library, and for each byte of its file. A decoder gives back a third of that
# when its cache is made; what its kernels take beside the widest activations is as much, and not counted.
_TOKENIZER, _PER_TOKENIZER_BYTE = 5_000_000, 9.2
# What the runtime keeps for a session whatever its graph, and what a batch of texts takes beside its widest
# activations.
_SESSION, ENCODER_ACTIVATIONS = 14_000_000, 6_000_000
_FLOAT = 4


def encoder_batches(work: PredictedWork, threads: int) -> tuple[int, bool]:
    """Sentences of a batch, and whether the threads take a batch each: as the runtime divides them."""
    each = max(1, min(work.batch, TOKENS_PER_CORE // work.prompt_tokens))
    if threads > 1 and -(-work.batch // each) >= WORTH * threads:
        return each, True
    return max(1, min(work.batch, TOKENS_PER_CORE * threads // work.prompt_tokens)), False


def process_bytes(tokenizer: int | None, resident: int = 0, graphs: int = 1) -> float:
    """Of a process that runs a bundle of so many ``graphs``, without weights, activations and cache.
    ``tokenizer``: the bytes of its file, None where none is read; ``resident``: of a process that can open a
    bundle, by a kernel table.
    """
    read = 0.0 if tokenizer is None else _TOKENIZER + _PER_TOKENIZER_BYTE * tokenizer
    return (resident or RESIDENT) + graphs * _SESSION + read


def activation_bytes(rows: int, widest: int, vocab: int) -> float:
    """Of so many tokens at once, with ``widest`` numbers each in the widest activation, and of logits."""
    return float(2 * _FLOAT * rows * widest + _FLOAT * vocab)


def sizes(
    subject: Subject, work: PredictedWork, threads: int, resident: int, provider: str = "cpu"
) -> list[Quantity]:
    """Peak memory and disk. Memory peaks when weights are packed, or when all that is needed is in use; what
    a GPU's process holds of the main memory was never measured.
    """
    disk = Quantity("disk_bytes", float(subject.disk), "bytes", subject.disk_band)
    if provider != "cpu":
        return [Quantity("rss_peak_bytes", None, "bytes", BAND, "no GPU's process was measured"), disk]
    length, encoder = work.read(subject), subject.kind == "encoder"
    texts, graphs = subject.unit == "text", 1 if subject.reads is None else 2
    packed: int = subject.does(Run(1, length=length)).packed
    packed += 0 if subject.reads is None else subject.reads(Run(length, length=length)).packed
    sessions = 2 if encoder and texts and encoder_batches(work, threads)[1] else 1
    tokenizer = subject.tokenizer if subject.tokenizer or texts else None
    fixed = process_bytes(tokenizer, resident, graphs)
    rows = TOKENS_PER_CORE if encoder else min(length, PREFILL_CHUNK)
    rows = rows if texts else length * (work.batch if encoder else 1)
    activations = activation_bytes(rows, subject.widest, subject.vocab)
    activations += ENCODER_ACTIVATIONS if encoder else 0
    held = max(subject.weights, packed)
    cache = 0 if encoder else subject.kv_bytes * (length + work.new_tokens)
    running = fixed + sessions * (held + activations) + cache
    opening = fixed + (sessions + 1) * packed  # the last session packs its weights beside those of the file
    peak = float(max(running, opening))
    return [Quantity("rss_peak_bytes", peak, "bytes", BAND if subject.held else GUESS), disk]
