"""``NamedModel``: what a user named as a model, opened once, however many ask what it is."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import require
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.directory import MANIFEST
from ...runtime.engine.label_form import LabelForm
from ...runtime.text.tokenizer import Tokenizer
from ...terminal.progress import Progress, Silent

if TYPE_CHECKING:
    from ...compress.model.models import ResolvedModel
    from ...compress.model.weights import WeightSource


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
