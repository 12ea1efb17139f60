"""``ImageModel``: the bundle of an encoder that reads images, loaded: their embeddings, or their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import BundleError, InputError
from ...terminal.progress import Progress, Silent
from ..bundle.bundle import Bundle
from ..images.prepared import Pixels, read_images
from ..session.session import graph_errors_are_typed
from .classify import Classification, classifications
from .encoder_answers import LOGITS, POOLED, Vectors
from .load import load_graph

# Images that are decoded and read at once: each becomes hundreds of tokens.
BATCH_SIZE = 8


class ImageModel:
    """What runs the graph of a bundle that reads images.

    Attributes:
        labels: of a classifier; empty for one that embeds.

    Raises:
        InputError: the bundle reads text.
        BundleError: the graph does not load, or is not the one that the manifest describes.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        profile: Path | None = None,
    ) -> None:
        section = bundle.encoder
        if section.image is None:
            does, call = section.verb
            raise InputError(f"{bundle.path} {does} text and reads no images", fix=f"use: edgepress {call}")
        self.bundle, self.section, self.how = bundle, section, section.image
        self.labels = tuple(section.labels or ())
        self._output, self._width = (
            (LOGITS, len(self.labels))
            if self.labels
            else (POOLED, section.embedding_size or section.hidden_size)
        )
        self.session = load_graph(bundle, threads=threads, provider=provider, profile=profile)
        names = {node.name for node in self.session.get_outputs()}
        if {node.name for node in self.session.get_inputs()} != {"pixel_values"} or self._output not in names:
            raise BundleError(
                "the graph is not the one that the manifest describes",
                why=f"it does not make {self._output} of pixel_values alone",
            )

    def encode(
        self,
        images: Sequence[Path | str],
        *,
        batch_size: int = BATCH_SIZE,
        progress: Progress | None = None,
    ) -> Vectors:
        """Embeddings ``[len(images), hidden]`` of image files, in float32.

        Raises:
            InputError: the bundle is a classifier, an image cannot be read, or a batch size below 1.
        """
        if self.labels:
            raise InputError(
                "this bundle is a classifier: it has labels, not embeddings",
                fix=f"use: edgepress {self.section.verb[1]}",
            )
        return self._read(images, batch_size, progress, "embedding")

    def logits(
        self,
        images: Sequence[Path | str],
        *,
        batch_size: int = BATCH_SIZE,
        progress: Progress | None = None,
    ) -> Vectors:
        """What a classifier says of each image file: ``[len(images), labels]`` in float32.

        Raises:
            InputError: the bundle is no classifier, an image cannot be read, or a batch size below 1.
        """
        if not self.labels:
            raise InputError("this bundle has no labels", fix=f"use: edgepress {self.section.verb[1]}")
        return self._read(images, batch_size, progress, "classifying")

    def classify(
        self,
        images: Sequence[Path | str],
        *,
        batch_size: int = BATCH_SIZE,
        progress: Progress | None = None,
    ) -> list[Classification]:
        """The label of each image file; raises as :meth:`logits`."""
        logits = self.logits(images, batch_size=batch_size, progress=progress)
        return classifications(logits, self.labels, several=self.section.several)

    def answers(self, pixels: Pixels) -> Vectors:
        """Logits or embeddings, a row for each of the prepared ``pixels [images, 3, height, width]``."""
        with graph_errors_are_typed("the graph failed on a batch of images"):
            (found,) = self.session.run([self._output], {"pixel_values": pixels})
        if found.shape != (len(pixels), self._width):
            raise BundleError(
                "the graph is not the one that the manifest describes",
                why=f"its {self._output} is {list(found.shape)}, the manifest says {self._width} wide",
            )
        return found  # type: ignore[no-any-return]

    def _read(
        self, images: Sequence[Path | str], batch_size: int, progress: Progress | None, what: str
    ) -> Vectors:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, it must be at least 1")
        images = [images] if isinstance(images, (str, Path)) else images
        found = np.empty((len(images), self._width), np.float32)
        with (progress or Silent()).task(what, len(images)) as task:
            for start in range(0, len(images), batch_size):
                part = slice(start, start + batch_size)
                found[part] = self.answers(read_images(images[part], self.how))
                task.advance(len(images[part]))
        return found
