"""``Prediction``: what is expected of a model on a machine, with its basis, its band, and the command that
measures the same.

What a model will take of memory and disk on any machine, from its sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...runtime.engine.decoder import PREFILL_CHUNK
from ...runtime.engine.encoder_answers import TOKENS_PER_CORE, WORTH
from .run import Run
from .subject import PredictedWork, Subject

Basis = Literal["measured table", "measured table, not held against measurements", "data sheet"]
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


@dataclass(frozen=True)
class Quantity:
    """A number that is expected within ``band`` of itself, either way; ``value`` is None for a ``reason``,
    and ``most`` what is possible, where that is known.
    """

    name: str
    value: float | None
    unit: str
    band: float
    reason: str = ""
    most: float | None = None

    @property
    def low(self) -> float | None:
        """The least that the band allows."""
        return None if self.value is None else self.value * (1 - self.band)

    @property
    def high(self) -> float | None:
        """The most that the band allows; of what is not predicted the most that is possible."""
        return self.most if self.value is None else self.value * (1 + self.band)


@dataclass(frozen=True)
class Prediction:
    """Of one subject on one target.

    Attributes:
        subject: what is predicted, in words; workload: what it is to do; provider: what runs it.
        source: of the basis: the table's processor, runtime and age, or the data sheet's own.
        check: the command that measures the same quantities.
        notes: what lies beyond the table, and what was assumed.
        artifact: the identity of the bundle; empty of a plan.
    """

    subject: str
    target: str
    basis: Basis
    source: str
    threads: int | None
    workload: Mapping[str, Any]
    quantities: tuple[Quantity, ...]
    check: str
    notes: tuple[str, ...] = field(default=())
    artifact: str = ""
    provider: str = "cpu"

    def value(self, name: str) -> float | None:
        """The quantity ``name``; None where it is not predicted."""
        return next((one.value for one in self.quantities if one.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; ``predicted`` keeps it from being taken for a measurement."""
        return {
            "predicted": True,
            "subject": self.subject,
            "artifact": self.artifact,
            "target": self.target,
            "basis": self.basis,
            "source": self.source,
            "threads": self.threads,
            "provider": self.provider,
            "workload": dict(self.workload),
            "quantities": {
                one.name: {
                    "value": one.value,
                    "unit": one.unit,
                    "band": one.band,
                    "low": one.low,
                    "high": one.high,
                    "reason": one.reason,
                }
                for one in self.quantities
            },
            "check": self.check,
            "notes": list(self.notes),
        }


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
