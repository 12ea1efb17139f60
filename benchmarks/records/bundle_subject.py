"""A bundle under measurement: its logits and embeddings come from the runtime that ships, without torch."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...files.storage import read_json
from ...runtime.bundle.bundle import Bundle
from ...runtime.engine.batch_decoder import greedy_replies
from ...runtime.engine.decoder import Decoder
from ...runtime.engine.encoder import Encoder
from ...runtime.engine.encoder_answers import LabelForm
from ...runtime.kernels.library import instructions
from ...runtime.session.threads import thread_budget
from ...runtime.text.tokenizer import Tokenizer
from .answer_subjects import AnswerModel, BehindBlocks, BundleAnswers, answers_to, copying_logits
from .record import Subject, learning_curves

_FLOAT_BITS = 16
# Integer products of edgepress's operators beside float32's.
_INTEGERS = 2.5


class BundleSubject:
    """An opened bundle, as it was shipped.

    Attributes:
        kind: decoder or encoder; that of an encoder–decoder is its decoder's, which is given, behind the
            token that answers begin with, the text that the encoder reads.
        tokenizer: its own; labels: of a classifier, read as ``label_form`` says.
        answering: of an encoder–decoder, what it writes of an input.
        max_length: tokens that fit one window or text.
        runtime: name, version and threads of what runs it, and its operators.
    """

    behind_blocks: BehindBlocks | None = None

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._bundle = Bundle.open(path)
        self.kind: Literal["decoder", "encoder"] = "encoder" if self._bundle.kind == "encoder" else "decoder"
        self.tokenizer = Tokenizer.open(path)
        threads = threads or thread_budget()
        self.answering: AnswerModel | None = None
        if self._bundle.kind == "encoder_decoder":
            self.answering = BundleAnswers(self._bundle, self.tokenizer, threads)
        self._decoder = Decoder.open(self._bundle, threads) if self._bundle.kind == "decoder" else None
        self._encoder = Encoder.open(self._bundle, threads) if self.kind == "encoder" else None
        self.labels = self._encoder.labels if self._encoder else ()
        self.label_form = LabelForm()
        if self._encoder is not None and self.labels:
            self.label_form = LabelForm(self._bundle.encoder.labelled, self._bundle.encoder.several)
        self.max_length = _longest(self._bundle)
        self.runtime = runtime_of(self._bundle, threads)

    def read_ahead(self, windows: NDArray[np.int64]) -> None:
        """Nothing: the bundle is mapped."""

    def logits(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits ``[batch, length, vocab]`` at every position of ``input_ids [batch, length]``."""
        if self.answering is not None:
            return copying_logits(self.answering, input_ids)
        if self._decoder is None:
            raise InputError("an encoder has embeddings, not logits")
        return self._decoder.logits(input_ids)

    def greedy(
        self, prompts: Sequence[str], new_tokens: int, step: Callable[[], None] | None = None
    ) -> list[list[int]]:
        """What the bundle replies to each of ``prompts``, as ids; empty where they do not fit."""
        if self.answering is not None:
            return answers_to(self.answering, self.tokenizer, prompts, new_tokens, step)
        if self._decoder is None:
            raise InputError("an encoder has embeddings, and writes no text")
        session, section = self._decoder.session, self._decoder.section
        return greedy_replies(
            session, section, self.tokenizer, prompts=prompts, new_tokens=new_tokens, step=step
        )

    def embeddings(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentence embeddings ``[len(texts), hidden]`` of texts as they are, without a prompt."""
        if self._encoder is None:
            raise InputError("a decoder has logits, not embeddings")
        return self._encoder.encode(texts, prompt="")

    def label_logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A classifier's logits ``[texts or tokens, labels]``."""
        if self._encoder is None:
            raise InputError("a decoder has no labels")
        if self.label_form.by_token:
            return self._encoder.answers(self.tokenizer.encode_batch(texts, max_length=self.max_length))
        return self._encoder.logits(texts)

    @property
    def content_sha256(self) -> str:
        """The hash of all that its answers are made of: its manifest has those of its files, which were held
        against them."""
        return self._bundle.manifest_sha256

    def describe(self) -> Subject:
        """The bundle as records name it."""
        return describe_bundle(self._bundle)


def _longest(bundle: Bundle) -> int:
    """Tokens that fit one window or text."""
    if bundle.kind == "encoder_decoder":
        both = bundle.encoder_decoder
        return min(both.max_length, both.context_length - 1)
    return bundle.decoder.context_length if bundle.kind == "decoder" else bundle.encoder.max_length


def runtime_of(bundle: Bundle, threads: int) -> dict[str, Any]:
    """What runs ``bundle``, for a record: ONNX Runtime, and whose operators."""
    running = {"name": "onnxruntime", "version": version("onnxruntime"), "threads": threads}
    return {**running, **operators_of(bundle)}


def operators_of(bundle: Bundle) -> dict[str, Any]:
    """Of the runtime, for a record: whose ``operators`` run ``bundle``, and the ``instructions`` that those
    of edgepress use here; of ONNX Runtime's it does not say.
    """
    own = bundle.own_operators
    return {
        "operators": "edgepress" if own else "standard",
        "instructions": instructions() if own else None,
    }


def _kind(bundle: Bundle) -> Literal["decoder", "encoder", "classifier"]:
    if bundle.kind == "encoder":
        return "classifier" if bundle.encoder.labels else "encoder"
    return "decoder"


def describe_bundle(bundle: Bundle) -> Subject:
    """A bundle as records name it: everything comes from its manifest."""
    weights = bundle.manifest.get("weights") or {}
    source = bundle.manifest.get("source") or {}
    return Subject(
        name=bundle.name,
        manifest_sha256=bundle.manifest_sha256,
        kind=_kind(bundle),
        format="onnx",
        scheme=bundle.scheme,
        source=str(bundle.manifest.get("described") or ""),
        params=weights.get("params"),
        weight_bytes=weights.get("bytes"),
        disk_bytes=bundle.disk_bytes,
        bytes_per_token=weights.get("bytes_per_token"),
        layers=bundle.manifest.get("layers") or [],
        recipe=source.get("recipe"),
        learning=learning_curves(bundle.manifest.get("steps") or []),
    )


def multiplications(bundle: Bundle) -> float:
    """Multiply-adds of a token, counted in float32's by the time they take: one for each weight, without an
    encoder's embedding, of which it reads one row. Where the manifest does not count the weights, four bits
    each are assumed.
    """
    subject = describe_bundle(bundle)
    weights = subject.params or 2 * subject.disk_bytes
    bits = 8 * (subject.weight_bytes or subject.disk_bytes) / weights
    if bundle.kind == "encoder":
        weights = max(weights - _embedding(bundle), weights // 10)
    return weights / (_INTEGERS if bundle.own_operators and bits < _FLOAT_BITS else 1.0)


def bytes_of_a_token(bundle: Bundle) -> int:
    """Bytes of weights that a token reads."""
    subject = describe_bundle(bundle)
    return subject.bytes_per_token or subject.disk_bytes


def _embedding(bundle: Bundle) -> int:
    path = bundle.path / "config.json"
    config = read_json(path) if path.is_file() else {}
    rows = config.get("vocab_size") if isinstance(config, dict) else None
    return rows * bundle.encoder.hidden_size if isinstance(rows, int) else 0
