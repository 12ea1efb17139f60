"""``Encoder``: sentence embeddings in batches, padded to the longest text of the batch and no further.

Texts are sorted by length, so that a batch holds texts of one size and little is spent on padding; the
results come back in the order of the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BundleError, InputError
from ..terminal import Progress, Silent
from .alongside import Alongside
from .bundle import Bundle
from .load import load_graph
from .manifest import EncoderSection
from .session import graph_errors_are_typed
from .tokenizer import Tokenizer

BATCH_SIZE = 32
POOLED = "sentence_embedding"

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


class Encoder:
    """An encoder graph with its tokenizer.

    Attributes:
        max_length: tokens of a text that are read, special tokens included; the rest is cut off.
        hidden_size: width of an embedding.
    """

    def __init__(self, session: Any, section: EncoderSection, tokenizer: Tokenizer) -> None:
        self.session = session
        self.section = section
        self.tokenizer = tokenizer
        self.max_length, self.hidden_size = section.max_length, section.hidden_size
        self._outputs = [node.name for node in session.get_outputs()]
        inputs = {node.name for node in session.get_inputs()}
        if inputs != set(section.inputs):
            raise BundleError(
                "the graph is not the one that the manifest describes",
                why=f"it takes {sorted(inputs)}, the manifest says {sorted(section.inputs)}",
            )

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        threads: int | None = None,
        *,
        provider: str = "cpu",
        profile: Path | None = None,
        cache: bool = True,
    ) -> Encoder:
        """Load the graph and the tokenizer of ``bundle``; the arguments are those of
        :func:`.load.load_graph`.

        Raises:
            InputError: the bundle is a decoder.
            BundleError: the graph does not load, or is not the one that the manifest describes.
        """
        section = bundle.encoder
        load = partial(load_graph, threads=threads, provider=provider, profile=profile, cache=cache)
        with Alongside(partial(load, bundle)) as session:
            tokenizer = Tokenizer.open(bundle.path)
            return cls(session.result(), section, tokenizer)

    def encode(
        self, texts: Sequence[str], batch_size: int = BATCH_SIZE, *, progress: Progress | None = None
    ) -> Vectors:
        """Embeddings ``[len(texts), hidden_size]`` in float32, normalised if the model says so.

        Raises:
            BundleError: the bundle has no pooling.
        """
        ids = self.tokenizer.encode_batch(texts, max_length=self.max_length)
        return self.embed_ids(ids, batch_size, progress=progress)

    def embed_ids(
        self, ids: Sequence[Sequence[int]], batch_size: int = BATCH_SIZE, *, progress: Progress | None = None
    ) -> Vectors:
        """:meth:`encode` for token ids, special tokens included.

        Raises:
            InputError: an empty text, one longer than ``max_length``, or a batch size below 1.
        """
        self._check(ids, batch_size)
        result = np.empty((len(ids), self.hidden_size), np.float32)
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        with (progress or Silent()).task("embedding", len(ids)) as task:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                result[rows] = self._pooled(*self._padded([ids[row] for row in rows]))
                task.advance(len(rows))
        return result

    def forward(self, input_ids: Ids, attention_mask: Ids) -> dict[str, Vectors]:
        """Every output of the graph by name, for ids and mask of shape ``[batch, seq]``."""
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self.section.inputs:
            feeds["token_type_ids"] = np.zeros_like(input_ids)
        feeds = {name: feeds[name] for name in self.section.inputs}
        with graph_errors_are_typed("the graph failed on a batch"):
            return dict(zip(self._outputs, self.session.run(self._outputs, feeds), strict=True))

    def _pooled(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        vectors = self.forward(input_ids, attention_mask)[POOLED]
        if vectors.shape != (input_ids.shape[0], self.hidden_size):
            raise BundleError(
                "the graph is not the one that the manifest describes",
                why=f"its embeddings are {list(vectors.shape)}, the manifest says {self.hidden_size} wide",
            )
        return vectors

    def _padded(self, rows: list[Sequence[int]]) -> tuple[Ids, Ids]:
        longest = max(map(len, rows))
        input_ids = np.full((len(rows), longest), self.tokenizer.pad_id or 0, np.int64)
        attention_mask = np.zeros((len(rows), longest), np.int64)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = row
            attention_mask[index, : len(row)] = 1
        return input_ids, attention_mask

    def _check(self, ids: Sequence[Sequence[int]], batch_size: int) -> None:
        if self.section.pooling is None or POOLED not in self._outputs:
            raise BundleError(
                "this bundle has no sentence embeddings",
                why="its model card names no pooling, so the export gave none; a mean would be a guess",
                fix="export a sentence-transformers model, or read last_hidden_state through Encoder.forward",
            )
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, it must be at least 1")
        for row in ids:
            if not 0 < len(row) <= self.max_length:
                raise InputError(
                    f"a text of {len(row)} tokens does not fit this model: 1 to {self.max_length}"
                )
