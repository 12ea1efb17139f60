"""What is measured: a bundle or a checkpoint behind one face, so that both go through the same code.

``NamedModel``: what a user named as a model, opened once, however many ask what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, require
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.directory import MANIFEST
from ...runtime.engine.encoder_answers import LabelForm
from ...runtime.text.tokenizer import Tokenizer
from ...terminal.progress import Progress, Silent
from . import record
from .answer_subjects import AnswerModel, BehindBlocks

if TYPE_CHECKING:
    from ...compress.model.models import ResolvedModel
    from ...compress.model.weights import WeightSource

Step = Callable[[], None]


class TokenModel(Protocol):
    """What token metrics ask of a model: how text becomes tokens, and the logits after each of them."""

    tokenizer: Tokenizer

    def logits(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """``[batch, length, vocab]`` for ids ``[batch, length]``."""
        ...


class OpenModel(Protocol):
    """A model that is open. A decoder has ``logits``, an encoder ``embeddings``, a classifier
    ``label_logits``.

    Attributes:
        labels: of a classifier; empty for all others.
        label_form: how their logits are read.
        max_length: tokens that fit one window or text.
        answering: of an encoder–decoder, what it writes of an input; None for all others.
        behind_blocks: of a decoder in torch, its last states; None for all others.
        content_sha256: the hash of all that its answers are made of.
        runtime: what runs it: name, version, threads.
    """

    kind: Literal["decoder", "encoder"]
    labels: tuple[str, ...]
    label_form: LabelForm
    tokenizer: Tokenizer
    max_length: int
    answering: AnswerModel | None
    runtime: dict[str, Any]

    @property
    def behind_blocks(self) -> BehindBlocks | None: ...

    @property
    def content_sha256(self) -> str: ...

    def logits(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """``[batch, length, vocab]`` for ids ``[batch, length]``."""
        ...

    def read_ahead(self, windows: NDArray[np.int64]) -> None:
        """States which windows ``[n, length]`` a decoder's logits are asked for next."""
        ...

    def greedy(self, prompts: Sequence[str], new_tokens: int, step: Step | None = None) -> list[list[int]]:
        """The ids that a decoder replies to each prompt with, the likeliest token each time, until it ends
        the text; empty where they do not fit, and of a model that does not fit memory. ``step`` is called
        after each token of all."""
        ...

    def embeddings(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``[len(texts), hidden]``."""
        ...

    def label_logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``[texts or tokens, labels]``."""
        ...

    def describe(self) -> record.Subject:
        """The artifact as records name it."""
        ...


def open_subject(
    model: str | Path | NamedModel,
    *,
    device: str = "cpu",
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> OpenModel:
    """Open a bundle directory, or a checkpoint by what ``compress`` takes: a directory, a ``.gguf`` file, a
    demo name.

    Args:
        device: where torch runs a checkpoint; a bundle runs on the CPU. A decoder whose weights would take
            more than half of the ``memory`` is read block by block.
        memory: bytes that may be taken; what is free when None.
        threads: for the computation; this machine's budget when None.
    """
    named = NamedModel.of(model, progress)
    if named.bundle is not None:
        from .bundle_subject import BundleSubject

        _refuse_sounds(named, hears=_hears(named.bundle))
        return BundleSubject(named.path, threads=threads)
    resolved, source = named.resolved, named.source
    from .checkpoint_subject import CheckpointSubject
    from .streamed_subject import StreamedSubject, needs_streaming

    _refuse_sounds(named, hears=source.anatomy.hearing is not None)
    if device == "cpu" and needs_streaming(source, memory):
        return StreamedSubject(resolved, source, progress or Silent(), device=device, threads=threads)
    return CheckpointSubject(resolved, source, device=device, threads=threads)


def _hears(bundle: Bundle) -> bool:
    return bundle.kind == "encoder_decoder" and bundle.encoder_decoder.sound is not None


def _refuse_sounds(model: NamedModel, *, hears: bool) -> None:
    if hears:
        raise InputError(
            f"{model} hears sounds, and reads no text that it could be measured on",
            fix="compare it with the model that it was made from: edgepress validate BUNDLE --against MODEL "
            "--audio FOLDER",
        )


class NamedModel:
    """A bundle directory, or a checkpoint by what ``compress`` takes: a directory, a ``.gguf`` file, a demo
    name. Nothing is opened before it is asked for, and no weights are loaded.
    """

    def __init__(self, name: str | Path, progress: Progress | None = None) -> None:
        self.name, self._progress = str(name), progress or Silent()
        self.path = Path(name)

    @classmethod
    def of(cls, model: str | Path | NamedModel, progress: Progress | None = None) -> NamedModel:
        """``model`` itself, where it is one."""
        return model if isinstance(model, NamedModel) else cls(model, progress)

    def __str__(self) -> str:
        return self.name

    @cached_property
    def bundle(self) -> Bundle | None:
        """Its manifest, none of the files being held against it; None of a checkpoint."""
        return Bundle.open(self.path, verify=False) if (self.path / MANIFEST).is_file() else None

    @cached_property
    def resolved(self) -> ResolvedModel:
        """The directory of a checkpoint; raises as :func:`~edgepress.compress.model.models.resolve`."""
        require("torch", "compress")
        require("transformers", "compress")
        from ...compress.model.models import resolve

        return resolve(self.name, self._progress)

    @cached_property
    def source(self) -> WeightSource:
        """A checkpoint's headers, config and vocabulary."""
        from ...compress.model.weights import WeightSource

        return WeightSource.open(self.resolved.path)

    @property
    def kind(self) -> str:
        """``decoder``, ``encoder`` or ``encoder_decoder``; raises as :attr:`bundle` or :attr:`source`."""
        return self.source.anatomy.kind if self.bundle is None else self.bundle.kind

    @property
    def context_length(self) -> int:
        """Tokens that a decoder takes; raises as :attr:`bundle` or :attr:`source`."""
        if self.bundle is None:
            return self.source.anatomy.max_positions
        return self.bundle.decoder.context_length

    @property
    def labels(self) -> tuple[str, ...]:
        """Of a classifier; empty for all others. Raises as :attr:`bundle` or :attr:`source`."""
        if self.bundle is None:
            head = self.source.anatomy.classifier
            return () if head is None else head.labels
        return tuple(self.bundle.encoder.labels or ()) if self.bundle.kind == "encoder" else ()

    @property
    def label_form(self) -> LabelForm:
        """How the logits of :attr:`labels` are read; raises as :attr:`bundle` or :attr:`source`."""
        if not self.labels:
            return LabelForm()
        if self.bundle is None:
            head = self.source.anatomy.classifier
            assert head is not None
            return LabelForm(head.labelled, head.several)
        return LabelForm(self.bundle.encoder.labelled, self.bundle.encoder.several)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its own."""
        return Tokenizer.open(self.resolved.path if self.bundle is None else self.path)
