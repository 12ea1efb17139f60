"""A bundle or checkpoint of a model that reads images, under measurement: its embeddings or labels."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...compress.model.model_names import read_by_model
from ...errors import InputError, require
from ...files.limits import require_threads
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.directory import MANIFEST
from ...runtime.engine.encoder_answers import LabelForm
from ...runtime.engine.image_encoder import BATCH_SIZE, ImageModel
from ...runtime.images.prepared import read_images
from ...runtime.session.threads import thread_budget
from ...terminal.progress import Progress
from .bundle_subject import describe_bundle, runtime_of
from .record import Subject
from .subjects import NamedModel

Vectors = NDArray[np.float32]


class ImageSubject(Protocol):
    """A model of images that is open; ``labels`` are those of a classifier, read as ``label_form`` says."""

    kind: Literal["encoder"]
    labels: tuple[str, ...]
    label_form: LabelForm
    runtime: dict[str, Any]

    @property
    def content_sha256(self) -> str:
        """The hash of all that its answers are made of."""
        ...

    def answers(self, files: Sequence[Path]) -> Vectors:
        """Embeddings ``[len(files), size]``, or a classifier's logits ``[len(files), labels]``."""
        ...

    def describe(self) -> Subject:
        """The artifact as records name it."""
        ...


def reads_images(model: NamedModel) -> bool:
    """Whether ``model``, a bundle or what ``compress`` takes, reads images."""
    if (bundle := model.bundle) is not None:
        return bundle.kind == "encoder" and bundle.encoder.image is not None
    return read_by_model(model.name) == "images"


def open_image_subject(
    model: str | Path | NamedModel, *, device: str, threads: int | None, progress: Progress
) -> ImageSubject:
    """Open ``model``; raises as :func:`.subjects.open_subject`, and InputError for one that reads text."""
    named = NamedModel.of(model, progress)
    if (named.path / MANIFEST).is_file():
        return ImageBundleSubject(named.path, threads)
    require("torch", "compress")
    require("transformers", "compress")
    return ImageCheckpointSubject(named.name, device, threads, progress)


class ImageBundleSubject:
    """An opened bundle, as it was shipped."""

    kind: Literal["encoder"] = "encoder"

    def __init__(self, path: Path, threads: int | None) -> None:
        threads = threads or thread_budget()
        self._model = ImageModel(Bundle.open(path), threads=threads)
        section, self.labels = self._model.section, self._model.labels
        self.label_form = LabelForm(section.labelled, section.several) if self.labels else LabelForm()
        self.runtime = runtime_of(self._model.bundle, threads)

    def answers(self, files: Sequence[Path]) -> Vectors:
        """As :meth:`ImageSubject.answers`."""
        return self._model.logits(files) if self.labels else self._model.encode(files)

    @property
    def content_sha256(self) -> str:
        """As :class:`ImageSubject` has it."""
        return self._model.bundle.manifest_sha256

    def describe(self) -> Subject:
        """As :meth:`ImageSubject.describe`."""
        return describe_bundle(self._model.bundle)


class ImageCheckpointSubject:
    """An opened checkpoint, dense or compressed, in torch."""

    kind: Literal["encoder"] = "encoder"

    def __init__(self, model: str, device: str, threads: int | None, progress: Progress) -> None:
        import torch

        from ...compress.model.image_processor import require_preprocessing
        from ...compress.model.models import resolve
        from ...compress.model.torch_model import load_model
        from ...compress.model.weights import WeightSource
        from ...compress.pipeline.device import choose_device
        from .checkpoint_subject import torch_runtime

        self._resolved = resolve(model, progress)
        self._source = WeightSource.open(self._resolved.path)
        anatomy = self._source.anatomy
        if anatomy.patches is None:
            raise InputError(f"{model} reads no images", fix="compare with the model that it was made from")
        head, self._tower = anatomy.classifier, anatomy.tower
        self.labels = () if head is None else head.labels
        self.label_form = LabelForm() if head is None else LabelForm(head.labelled, head.several)
        self._how = require_preprocessing(self._resolved.path)
        self._device = choose_device(device)
        torch.set_num_threads(require_threads(threads) or thread_budget())
        self._model = load_model(self._resolved.path, device=self._device)
        self.runtime = torch_runtime(self._device)

    def answers(self, files: Sequence[Path]) -> Vectors:
        """As :meth:`ImageSubject.answers`."""
        import torch

        rows, ask = [], self._asked()
        with torch.inference_mode():
            for start in range(0, len(files), BATCH_SIZE):
                pixels = torch.from_numpy(read_images(files[start : start + BATCH_SIZE], self._how))
                rows.append(ask(self._model(pixel_values=pixels.to(self._device))).float().cpu().numpy())
        return np.concatenate(rows)

    def _asked(self) -> Callable[[Any], Any]:
        """From what transformers gives to what is compared."""
        from ...compress.model.torch_model import label_logits, tower_vectors

        if self.labels:
            return label_logits
        return tower_vectors if self._tower is not None else lambda output: output.last_hidden_state[:, 0]

    @cached_property
    def content_sha256(self) -> str:
        """As :class:`ImageSubject` has it."""
        return self._source.reader.fingerprint()

    def describe(self) -> Subject:
        """As :meth:`ImageSubject.describe`."""
        from .checkpoint_subject import describe_checkpoint

        kind: Literal["classifier", "encoder"] = "classifier" if self.labels else "encoder"
        return describe_checkpoint(self._source, self._resolved, kind, lambda: self.content_sha256)
