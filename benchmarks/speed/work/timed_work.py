"""The units of work that are timed: one generation, or one round of embedding; those of encoder–decoders
are in :mod:`.timed_answer`. Forced lengths, greedy, batch as asked.

Token ids are drawn at random from a seed, so that both arms see the same prompt and no tokenizer is
inside the time. Nothing stops early: an end-of-text token is fed on like any other.

``TimedImages``: the unit of work of an encoder of images: one batch, then images alone.

Numbers are drawn at random from a seed as prepared pixels are: reading and resizing files is not in the time.

What is measured of each kind of work: metrics as functions of one run of it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ....errors import InputError
from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.decoder import Decoder
from ....runtime.engine.encoder import Encoder
from ....runtime.engine.image_encoder import ImageModel
from ....runtime.text.tokenizer import Tokenizer
from .loaded_work import BatchWork, GenerationWork, Sample, Work
from .timed_answer import TimedAnswer


@dataclass(frozen=True)
class TimedImages:
    """Read one batch of ``batch`` images, then ``singles`` alone; ``units`` as of
    :class:`.timed_work.TimedGeneration`.
    """

    units: ClassVar[dict[str, str]] = {"batch": "image"}
    batch: int = 32
    singles: int = 8
    seed: int = 0

    def check(self, bundle: Bundle) -> None:
        """Raise InputError when the bundle cannot do this: it reads texts, or the sizes are below 1."""
        if min(self.batch, self.singles) < 1:
            raise InputError("batch and singles must be at least 1")
        _size(bundle)

    def open(self, bundle: Bundle, *, threads: int, provider: str, profile: Path | None = None) -> Work:
        """Load the bundle, ready to work."""
        model = ImageModel(bundle, threads=threads, provider=provider, profile=profile)
        shape = (self.batch, 3, *_size(bundle))
        pixels = np.random.default_rng(self.seed).standard_normal(shape, dtype=np.float32)
        return BatchWork(model.session, model.answers, pixels, self.singles)

    def describe(self, bundle: Bundle) -> dict[str, Any]:
        """JSON for the record."""
        return {
            "kind": "see",
            "scenario": "offline and single",
            "batch": self.batch,
            "size": list(_size(bundle)),
            "seed": self.seed,
            "includes": {"decode": False, "resize": False, "load": False},
        }


def _size(bundle: Bundle) -> tuple[int, int]:
    image = bundle.encoder.image
    if image is None or image.size is None:
        raise InputError(f"{bundle.path} reads texts, and no images")
    return image.size


def _random_ids(shape: tuple[int, ...], vocab_size: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, vocab_size, size=shape, dtype=np.int64)


@dataclass(frozen=True)
class TimedGeneration:
    """Generate ``new_tokens`` after a prompt of ``prompt_tokens`` at batch 1.

    Attributes:
        units: what each phase that can be repeated alone gets through.
    """

    units: ClassVar[dict[str, str]] = {"prefill": "token", "decode": "token"}
    prompt_tokens: int = 128
    new_tokens: int = 128
    seed: int = 0

    def check(self, bundle: Bundle) -> None:
        """Raise InputError when the bundle cannot do this: an encoder, or a context that is too short."""
        if self.prompt_tokens < 1 or self.new_tokens < 2:
            raise InputError(
                f"a prompt of {self.prompt_tokens} and {self.new_tokens} new tokens cannot be timed",
                fix="use a prompt of at least 1 token and at least 2 new tokens",
            )
        total, context = self.prompt_tokens + self.new_tokens, bundle.decoder.context_length
        if total > context:
            raise InputError(
                f"{total} tokens do not fit the context of {context} of {bundle.path}",
                fix="lower --prompt-tokens or --max-new-tokens",
            )

    def open(self, bundle: Bundle, *, threads: int, provider: str, profile: Path | None = None) -> Work:
        """Load the bundle, ready to work."""
        tokenizer = Tokenizer.open(bundle.path)
        decoder = Decoder.open(bundle, threads, provider=provider, profile=profile)
        ids = _random_ids((self.prompt_tokens,), decoder.vocab_size, self.seed).tolist()
        return GenerationWork(decoder, tokenizer, ids, self.new_tokens)

    def describe(self, bundle: Bundle) -> dict[str, Any]:
        """JSON for the record."""
        ids = _random_ids((self.prompt_tokens,), bundle.decoder.vocab_size, self.seed)
        return {
            "kind": "generate",
            "scenario": "single",
            "batch": 1,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "sampling": "greedy",
            "kv_dtype": bundle.decoder.kv_dtype,
            "prompts_sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
            "includes": {"tokenize": False, "sample": True, "load": False},
        }


@dataclass(frozen=True)
class Embedding:
    """Embed sentences of ``length`` tokens: one batch of ``batch``, then ``singles`` alone; ``units`` as of
    :class:`TimedGeneration`.
    """

    units: ClassVar[dict[str, str]] = {"batch": "sentence"}
    length: int = 128
    batch: int = 32
    singles: int = 8
    seed: int = 0

    def check(self, bundle: Bundle) -> None:
        """Raise InputError when the bundle cannot do this: a decoder, one that reads images, or a length
        beyond its limit.
        """
        if min(self.length, self.batch, self.singles) < 1:
            raise InputError("length, batch and singles must be at least 1")
        if bundle.encoder.image is not None:
            raise InputError(f"{bundle.path} reads images, and no texts")
        if bundle.encoder.filled and self.length != bundle.encoder.max_length:
            raise InputError(
                f"{bundle.path} fills each text up to {bundle.encoder.max_length} tokens, and reads them all",
                fix=f"pass --prompt-tokens {bundle.encoder.max_length}",
            )
        if self.length > bundle.encoder.max_length:
            raise InputError(
                f"sentences of {self.length} tokens do not fit {bundle.path}",
                why=f"its limit is {bundle.encoder.max_length} tokens",
                fix="lower --prompt-tokens",
            )

    def open(self, bundle: Bundle, *, threads: int, provider: str, profile: Path | None = None) -> Work:
        """Load the bundle, ready to work."""
        encoder = Encoder.open(bundle, threads, provider=provider, profile=profile)
        ids = self._ids(encoder.tokenizer.vocab_size).tolist()
        return BatchWork(encoder.session, lambda rows: encoder.answers(rows, len(rows)), ids, self.singles)

    def _ids(self, vocab_size: int) -> npt.NDArray[np.int64]:
        return _random_ids((self.batch, self.length), vocab_size, self.seed)

    def describe(self, bundle: Bundle) -> dict[str, Any]:
        """JSON for the record."""
        return {
            "kind": "embed",
            "scenario": "offline and single",
            "batch": self.batch,
            "length": self.length,
            "seed": self.seed,
            "includes": {"tokenize": False, "pool": True, "load": False},
        }


Workload = TimedGeneration | Embedding | TimedImages | TimedAnswer
_KINDS: dict[str, type[Workload]] = {
    "generate": TimedGeneration,
    "embed": Embedding,
    "see": TimedImages,
    "answer": TimedAnswer,
}


def to_json(workload: Workload) -> dict[str, Any]:
    """The workload as a message for a worker."""
    kind = next(name for name, kind in _KINDS.items() if isinstance(workload, kind))
    return {"kind": kind, **asdict(workload)}


def from_json(message: dict[str, Any]) -> Workload:
    """The inverse of :func:`to_json`."""
    fields = {key: value for key, value in message.items() if key != "kind"}
    return _KINDS[message["kind"]](**fields)


@dataclass(frozen=True)
class Quantity:
    """A metric as a function of one run of the work.

    Attributes:
        observed: the nanosecond series that the percentiles are taken from; each block's value when empty.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    value: Callable[[Sample], float]
    observed: str = ""


def quantities(workload: Workload) -> list[Quantity]:
    """What a workload measures. The first is the one on which two arms are compared."""
    if isinstance(workload, TimedGeneration):
        return _of_generation(_tokens_read(workload.prompt_tokens))
    if isinstance(workload, TimedAnswer):
        return _of_generation(
            _heard(workload.seconds) if workload.seconds else _tokens_read(workload.prompt_tokens)
        )
    return _of_batches(workload.batch, "images" if isinstance(workload, TimedImages) else "sentences")


def speeds(workload: Workload) -> list[str]:
    """The two quantities that tables show: decoding and prompts, or batches and single ones."""
    return [quantity.name for quantity in quantities(workload)[:2]]


def _tokens_read(prompt: int) -> Quantity:
    return Quantity("prefill_tps", "tok/s", "higher", lambda run: prompt * 1e9 / run["prefill"][0])


def _heard(seconds: float) -> Quantity:
    """The inverse real-time factor: seconds of sound in a second of work, the whole answer among it."""
    return Quantity("rtfx", "×", "higher", lambda run: seconds * 1e9 / (run["first"][0] + sum(run["tokens"])))


def _of_generation(reading: Quantity) -> list[Quantity]:
    return [
        Quantity("decode_tps", "tok/s", "higher", lambda run: 1e9 / fmean(run["tokens"])),
        reading,
        Quantity("ttft_ms", "ms", "lower", lambda run: run["first"][0] / 1e6, "first"),
        Quantity("tpot_ms", "ms", "lower", lambda run: fmean(run["tokens"]) / 1e6),
        Quantity("itl_ms", "ms", "lower", lambda run: median(run["tokens"]) / 1e6, "tokens"),
        Quantity("e2e_ms", "ms", "lower", lambda run: (run["first"][0] + sum(run["tokens"])) / 1e6),
    ]


def _of_batches(batch: int, what: str) -> list[Quantity]:
    return [
        Quantity(f"{what}_per_second", "1/s", "higher", lambda run: batch * 1e9 / run["batch"][0]),
        Quantity("latency_ms", "ms", "lower", lambda run: median(run["single"]) / 1e6, "single"),
    ]
