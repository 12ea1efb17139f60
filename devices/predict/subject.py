"""``Subject``: what a prediction needs to know of a model: what a run of its graph does, and its sizes. A
bundle has them in its files; a plan may say them before there is one.

What a model is predicted to do, and the same limits that hold when it is measured.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ...errors import BundleError, InputError
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.graph_file import GraphFile
from .graph_operations import operations_of, reading_of
from .run import Operations, Run

# Of the graphs that are written, those with a router alone look for the rows of each expert.
_ROUTED = "NonZero"
# What an encoder gets through in a second, by what it reads.
RATES = {"text": "sentences_per_second", "image": "images_per_second"}


@dataclass(frozen=True)
class Subject:
    """A model as it will run.

    Attributes:
        does: the operations of a run of its graph, of an encoder–decoder that of its decoder.
        weights: bytes of the graph and its weights; disk: of everything, within ``disk_band``.
        tokenizer: bytes of the tokenizer's file.
        kv_bytes: that a token takes in the cache; values: that are bound to each run.
        widest: numbers of a token in the widest activation. artifact: the identity of a bundle.
        reads: of an encoder–decoder, the operations of a run of its encoder.
        unit: what it reads; length: the tokens of each image or sound, 0 of texts, whose length is their own.
        begins: runs of an encoder–decoder's decoder until its first token is chosen.
        most_read: tokens of a text that an encoder–decoder reads; seconds: of the sound that it hears.
        held: whether predictions of such models were held against measurements.
    """

    name: str
    kind: str
    does: Callable[[Run], Operations]
    weights: int
    disk: int
    tokenizer: int
    kv_bytes: int
    values: int
    vocab: int
    widest: int
    context: int
    disk_band: float = 0.0
    notes: tuple[str, ...] = ()
    artifact: str = ""
    reads: Callable[[Run], Operations] | None = None
    unit: Literal["text", "image", "sound"] = "text"
    length: int = 0
    begins: int = 1
    most_read: int = 0
    seconds: float = 0.0
    held: bool = True


def bundle_subject(path: Path) -> Subject:
    """The bundle at ``path``."""
    bundle = Bundle.open(path)
    graph = GraphFile.read(bundle.graph)
    if any(node.op == _ROUTED for node in graph.nodes.values()):
        raise BundleError(
            f"{path} is a mixture of experts, of which nothing is predicted",
            why="what a token reads depends on the experts that it goes to",
            fix=f"measure it: edgepress profile {path}",
        )
    tokenizer = path / "tokenizer.json"
    read = tokenizer.stat().st_size if tokenizer.is_file() else 0
    files = bundle.manifest["files"]
    weights = sum(entry["bytes"] for name, entry in files.items() if name.endswith((".onnx", ".data")))
    subject = Subject(
        name=f"{bundle.name} {bundle.scheme}",
        kind=bundle.kind,
        does=lambda run: operations_of(graph, bundle, run),
        weights=weights,
        disk=bundle.disk_bytes,
        tokenizer=read,
        kv_bytes=0,
        values=4,
        vocab=0,
        widest=0,
        context=1,
        artifact=bundle.manifest_sha256,
    )
    subject = _of_kind(subject, bundle)
    graphs = [subject.does] if subject.reads is None else [subject.does, subject.reads]
    counts = [one for does in graphs for one in does(Run(1, length=1)).counts]
    products = [one.sizes[2] for one in counts if one.kind == "product"]
    return replace(subject, widest=max(products, default=0))


def _of_kind(subject: Subject, bundle: Bundle) -> Subject:
    """``subject`` with what only decoders, encoders or encoder–decoders have."""
    if bundle.kind == "decoder":
        decoder = bundle.decoder
        return replace(
            subject,
            kv_bytes=decoder.kv_bytes_per_token,
            values=4 * len(decoder.layers) + 2 * len(decoder.states) + 4,
            vocab=decoder.vocab_size,
            context=decoder.context_length,
            held=not decoder.states,
        )
    if bundle.kind == "encoder":
        section = bundle.encoder
        if section.image is None:
            return replace(subject, context=section.max_length)
        return replace(subject, unit="image", length=subject.does(Run(1, length=1)).attended, held=False)
    both, graph = bundle.encoder_decoder, GraphFile.read(bundle.encoder_graph)
    subject = replace(
        subject,
        reads=lambda run: reading_of(graph, bundle, run),
        kv_bytes=both.kv_bytes_per_token,
        values=6 * len(both.layers) + 3,
        vocab=both.vocab_size,
        context=both.context_length,
        begins=1 + len(both.prompt),
        held=False,
    )
    if both.sound is None:
        return replace(subject, most_read=both.max_length)
    states = reading_of(graph, bundle, Run(1, length=1)).attended
    return replace(subject, unit="sound", length=states, seconds=both.sound.samples / both.sound.rate)


@dataclass(frozen=True)
class PredictedWork:
    """As ``profile`` measures: a prompt and new tokens of a decoder; of an encoder ``batch`` sentences of
    ``prompt_tokens``.
    """

    prompt_tokens: int = 128
    new_tokens: int = 128
    batch: int = 32

    def check(self, subject: Subject) -> None:
        """Refuse what does not fit the model."""
        if subject.unit == "image":
            return
        if subject.kind == "encoder_decoder":
            self._check_answer(subject)
            return
        total = self.prompt_tokens + (self.new_tokens if subject.kind == "decoder" else 0)
        if total > subject.context or self.new_tokens < 2:
            raise InputError(
                f"{total} tokens with {self.new_tokens} new ones do not fit {subject.name}",
                why=f"its context is {subject.context}, and two new tokens are the least",
                fix="change --prompt-tokens or --max-new-tokens",
            )

    def _check_answer(self, subject: Subject) -> None:
        total = subject.begins + self.new_tokens - 1
        if total > subject.context or self.new_tokens < 2:
            raise InputError(
                f"an answer of {self.new_tokens} tokens does not fit {subject.name}",
                why=f"it writes 2 to {subject.context - subject.begins + 1}",
                fix="change --max-new-tokens",
            )
        if subject.most_read and self.prompt_tokens > subject.most_read:
            raise InputError(
                f"a text of {self.prompt_tokens} tokens does not fit {subject.name}",
                why=f"it reads {subject.most_read}",
                fix="lower --prompt-tokens",
            )

    def read(self, subject: Subject) -> int:
        """Tokens that each text, image or sound is."""
        return subject.length or self.prompt_tokens

    def options(self, subject: Subject) -> str:
        """The words of a command line that asks for it."""
        named = {
            "prompt_tokens": "--prompt-tokens",
            "new_tokens": "--max-new-tokens",
            "batch": "--batch-size",
        }
        return " ".join(f"{named[name]} {value}" for name, value in self._used(subject).items())

    def as_dict(self, subject: Subject) -> dict[str, Any]:
        """JSON-ready: what texts take, and of images and sounds what counts."""
        return asdict(self) if subject.unit == "text" else self._used(subject)

    def _used(self, subject: Subject) -> dict[str, Any]:
        unused = {"batch"} if subject.kind != "encoder" else {"new_tokens"}
        unused |= set() if subject.unit == "text" else {"prompt_tokens"}
        return {name: value for name, value in asdict(self).items() if name not in unused}
