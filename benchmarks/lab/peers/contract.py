"""What a peer is given and what it gives back: tasks, variants, and engines that say when a token was known.

A peer is a module with ``TITLE``, ``PACKAGES`` (of its environment; none: edgepress's own), ``VARIANTS`` and
``DISTRIBUTIONS``, whose versions are reported; where it needs them also ``BUILD`` and ``ENVIRONMENT``, the
variables for installing and for running. Its folder is its kind, which says what functions it has:

    decoders     ``convert(ConversionTask, variant)``, ``load(artifact, variant, EngineSettings)``
    encoders     ``convert(EncoderConversionTask, variant)``, ``load(artifact, variant, threads)``
    quantizers   ``quantize(CompressionTask, variant)``
    pruners      ``prune(CompressionTask, variant)``
    trainers     ``train(TrainingTask, variant)``

A job is JSON: ``kind``, ``peer``, ``variant``, and the fields of the task by their names. Standard library
only: this file runs in every peer's environment.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

AnyTask = TypeVar("AnyTask", bound="ConversionTask | EncoderConversionTask | CompressionTask")
# From sentences and the size of a batch to vectors ``[sentences, hidden]``, an array of numpy.
EmbedSentences = Callable[[Sequence[str], int], Any]


@dataclass(frozen=True)
class ConversionTask:
    """A checkpoint to convert for an engine.

    Attributes:
        checkpoint: a Hugging Face directory with float32 safetensors and a tokenizer.
        artifact: an empty directory for the converted model.
        group_size: input channels per scale, where the engine lets one choose.
    """

    checkpoint: Path
    artifact: Path
    group_size: int


@dataclass(frozen=True)
class EncoderConversionTask:
    """An encoder's checkpoint to convert.

    Attributes:
        checkpoint: a directory of sentence-transformers with float32 safetensors and a tokenizer.
        artifact: a directory for all variants of the tool; what is there already is kept.
        calibration: JSON file, a list of texts.
    """

    checkpoint: Path
    artifact: Path
    calibration: Path


@dataclass(frozen=True)
class CompressionTask:
    """A checkpoint to compress.

    Attributes:
        checkpoint: a Hugging Face directory with float32 safetensors and a tokenizer.
        calibration: JSON file, a list of sequences of token ids.
        output: an empty directory; the tool works in it.
    """

    checkpoint: Path
    calibration: Path
    output: Path

    @property
    def result(self) -> Path:
        """The directory of the compressed checkpoint, which transformers loads; the tool makes it."""
        return self.output / "checkpoint"

    def tokens(self) -> list[list[int]]:
        """The calibration sequences."""
        found: list[list[int]] = json.loads(self.calibration.read_text(encoding="utf-8"))
        return found

    def copy_companions(self) -> None:
        """Copy the tokenizer and all other files that the tool did not write itself."""
        for file in self.checkpoint.iterdir():
            wanted = file.is_file() and file.suffix in (".json", ".jinja", ".txt", ".model")
            # The index of the shards is of the original's weights, which a tool may shard otherwise.
            if wanted and not (self.result / file.name).exists() and "index" not in file.name:
                shutil.copyfile(file, self.result / file.name)
        for folder in self.checkpoint.glob("1_*"):  # the pooling of sentence-transformers
            shutil.copytree(folder, self.result / folder.name, dirs_exist_ok=True)


@dataclass(frozen=True)
class TrainingTask(CompressionTask):
    """A student (``checkpoint``) to train, one pass over ``calibration``, whose sequences are equally long.

    Attributes:
        teacher: a Hugging Face directory, of the same tokenizer.
        rows: sequences a step.
        learning_rate: the largest, of AdamW; it falls as a cosine after a tenth of the steps.
    """

    teacher: Path
    rows: int
    learning_rate: float


def task_of(kind: type[AnyTask], job: Mapping[str, Any]) -> AnyTask:
    """The task in ``job``, whose paths are strings. Raises KeyError for a field that is missing."""
    given = {one.name: job[one.name] for one in fields(kind)}
    paths = {one.name: Path(given[one.name]) for one in fields(kind) if one.type is Path}
    return kind(**given | paths)


@dataclass(frozen=True)
class DecoderVariant:
    """One way in which an engine stores a model.

    Attributes:
        label: for tables.
        bits: of the weights of the linear layers; 32 and 16 are floating point.
        head_bits: of embedding and head.
        slow: an engine so slow that one round has to do.
    """

    label: str
    bits: int
    head_bits: int
    slow: bool = False


@dataclass(frozen=True)
class QuantizerVariant:
    """One way in which a tool quantizes the linear layers.

    Attributes:
        method: for tables; methods of the same name do the same work.
        bits, group_size: of the codes, and input channels per scale; None is one scale per output channel.
        scale_bits, zero_bits: bits of the scale and of the zero point of a group, as the tool stores them.
        calibrated: whether it sees the calibration tokens.
        activations: bits of the activations; 16 leaves them alone.
    """

    method: str
    bits: int
    group_size: int | None = 64
    scale_bits: int = 16
    zero_bits: int = 0
    calibrated: bool = True
    activations: int = 16

    @property
    def stored_bits(self) -> float:
        """Bits per weight, scales and zero points counted; a scale per channel is as good as nothing."""
        return self.bits + ((self.scale_bits + self.zero_bits) / self.group_size if self.group_size else 0)


@dataclass(frozen=True)
class EngineSettings:
    """How an engine runs: CPU threads, and the longest sequence there will be, in tokens."""

    threads: int
    context: int


@dataclass
class TimedTokens:
    """Token ids in order, and the moment on ``time.perf_counter`` at which each was known."""

    tokens: list[int] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    def add(self, token: int) -> None:
        """The next token, known now."""
        self.moments.append(time.perf_counter())
        self.tokens.append(token)


class DecodingEngine(Protocol):
    """A loaded model."""

    def generate(self, ids: Sequence[int], new_tokens: int) -> TimedTokens:
        """Greedy, from an empty cache, never stopping early."""


@dataclass(frozen=True)
class StepwiseEngine:
    """An engine driven token by token.

    Attributes:
        first: forgets everything, reads a prompt and gives the token after it.
        following: takes a token and gives the next.
    """

    first: Callable[[Sequence[int]], int]
    following: Callable[[int], int]

    def generate(self, ids: Sequence[int], new_tokens: int) -> TimedTokens:
        """See :class:`DecodingEngine`."""
        found = TimedTokens()
        found.add(self.first(ids))
        while len(found.tokens) < new_tokens:
            found.add(self.following(found.tokens[-1]))
        return found
