"""``Encoder``: sentence embeddings, or the logits of a classifier of texts or tokens, in batches.

A batch is padded to its longest text and no further. Texts are sorted by length, so that a batch holds texts
of one size and little is spent on padding; the results come back in the order of the texts. On a CPU many
texts are read by a batch a core, each on one thread: the cores then never wait for each other, as they do
after every node of a batch that they share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import BundleError, InputError
from ...terminal import Progress, ProgressTask, Silent
from ..bundle.bundle import Bundle
from ..bundle.manifest import EncoderSection
from ..session.session import graph_errors_are_typed
from ..session.threads import thread_budget
from ..text.tokenizer import Tokenizer
from .encoder_batches import TOKENS_PER_CORE, WorkerThreads, length_buckets
from .load import LoadingGraph, load_graph

BATCH_SIZE = 32
# Texts that are tokenized and sorted together: what bounds the memory of a stream.
WINDOW = 4096
# A GPU wants many tokens at once.
_TOKENS_ELSEWHERE = 16384
POOLED = "sentence_embedding"
LOGITS = "logits"

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


class Encoder:
    """An encoder graph with its tokenizer.

    Attributes:
        max_length: tokens of a text that are read, special tokens included; the rest is cut off.
        hidden_size: width of an embedding.
        labels: of a classifier; empty for a sentence encoder.
        by_token: whether a classifier's labels are of tokens, and not of texts.
    """

    def __init__(
        self,
        session: Any,
        section: EncoderSection,
        tokenizer: Tokenizer,
        workers: WorkerThreads | None = None,
    ) -> None:
        self.session, self._workers = session, workers
        self.section = section
        self.tokenizer = tokenizer
        self.max_length, self.hidden_size = section.max_length, section.hidden_size
        self.labels = tuple(section.labels or ())
        self.by_token = bool(self.labels) and section.labelled == "token"
        self._answer = (LOGITS, len(self.labels)) if self.labels else (POOLED, self.hidden_size)
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
    ) -> Encoder:
        """Load the graph and the tokenizer of ``bundle``; the arguments are those of
        :func:`.load.load_graph`.

        Raises:
            InputError: the bundle is a decoder.
            BundleError: the graph does not load, or is not the one that the manifest describes.
        """
        section = bundle.encoder
        load = partial(load_graph, threads=threads, provider=provider, profile=profile)
        workers = None
        if provider == "cpu" and profile is None:
            workers = WorkerThreads(threads or thread_budget(), partial(load, bundle, threads=1))
        graph = LoadingGraph(bundle, threads=threads, provider=provider, profile=profile)
        try:
            tokenizer = Tokenizer.open(bundle.path)
        finally:
            session = graph.result()
        return cls(session, section, tokenizer, workers)

    def encode(
        self, texts: Sequence[str], batch_size: int = BATCH_SIZE, *, progress: Progress | None = None
    ) -> Vectors:
        """Embeddings ``[len(texts), hidden_size]`` in float32, normalised if the model says so.

        Raises:
            BundleError: the bundle has no pooling.
            InputError: it is a classifier.
        """
        self._check_embeds()
        return self._read(texts, batch_size, progress, "embedding")

    def logits(
        self, texts: Sequence[str], batch_size: int = BATCH_SIZE, *, progress: Progress | None = None
    ) -> Vectors:
        """What a classifier says of each text: ``[len(texts), labels]`` in float32.

        Raises:
            InputError: the bundle is no classifier.
        """
        self._check_labelled()
        return self._read(texts, batch_size, progress, "classifying")

    def pair_logits(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int = BATCH_SIZE,
        *,
        progress: Progress | None = None,
    ) -> Vectors:
        """What a classifier says of each pair of texts: ``[len(pairs), labels]`` in float32.

        Raises:
            InputError: the bundle is no classifier.
        """
        self._check_labelled()
        result = np.empty((len(pairs), self._answer[1]), np.float32)
        with (progress or Silent()).task("reading pairs", len(pairs)) as task:
            for start in range(0, len(pairs), WINDOW):
                some = pairs[start : start + WINDOW]
                found = self.tokenizer.encode_pairs(some, max_length=self.max_length)
                ids, types = ([one[part] for one in found] for part in range(2))
                self._fill(ids, batch_size, result[start : start + WINDOW], task, types)
        return result

    def token_logits(
        self, ids: Sequence[Sequence[int]], batch_size: int = BATCH_SIZE, *, progress: Progress | None = None
    ) -> list[Vectors]:
        """What a classifier of tokens says of each of ``ids``: ``[tokens, labels]`` a text, in float32.

        Raises:
            InputError: the bundle is none, or as :meth:`embed_ids`.
        """
        if not self.by_token:
            raise InputError("this bundle labels no tokens", fix=f"use: edgepress {self.section.verb[1]}")
        result: list[Vectors] = [np.empty((0, self._answer[1]), np.float32)] * len(ids)
        with (progress or Silent()).task("tagging", len(ids)) as task:
            self._fill(ids, batch_size, result, task)
        return result

    def _check_labelled(self) -> None:
        if not self.labels or self.by_token:
            raise InputError(
                "this bundle has no labels of texts", fix=f"use: edgepress {self.section.verb[1]}"
            )

    def _read(self, texts: Sequence[str], batch_size: int, progress: Progress | None, what: str) -> Vectors:
        result = np.empty((len(texts), self._answer[1]), np.float32)
        with (progress or Silent()).task(what, len(texts)) as task:
            for start in range(0, len(texts), WINDOW):
                ids = self.tokenizer.encode_batch(texts[start : start + WINDOW], max_length=self.max_length)
                self._fill(ids, batch_size, result[start : start + WINDOW], task)
        return result

    def encode_stream(self, texts: Iterable[str], batch_size: int = BATCH_SIZE) -> Iterator[Vectors]:
        """:meth:`encode` for texts without end: vectors of up to :data:`WINDOW` texts at a time, in order."""
        source = iter(texts)
        while window := list(islice(source, WINDOW)):
            yield self.encode(window, batch_size)

    def embed_ids(
        self, ids: Sequence[Sequence[int]], batch_size: int = BATCH_SIZE, *, progress: Progress | None = None
    ) -> Vectors:
        """:meth:`encode` for token ids, special tokens included. A batch has at most ``batch_size`` texts,
        and on a CPU no more tokens than its cores work on at full speed.

        Raises:
            InputError: an empty text, one longer than ``max_length``, a batch size below 1, or a classifier.
        """
        self._check_embeds()
        return self.answers(ids, batch_size, progress=progress)

    def answers(
        self, ids: Sequence[Sequence[int]], batch_size: int = BATCH_SIZE, *, progress: Progress | None = None
    ) -> Vectors:
        """What the bundle is for: as :meth:`embed_ids`, or a classifier's logits, a row a text or token."""
        if self.by_token:
            return np.concatenate(self.token_logits(ids, batch_size, progress=progress))
        result = np.empty((len(ids), self._answer[1]), np.float32)
        with (progress or Silent()).task("reading", len(ids)) as task:
            self._fill(ids, batch_size, result, task)
        return result

    def _fill(
        self,
        ids: Sequence[Sequence[int]],
        batch_size: int,
        into: Vectors | MutableSequence[Vectors],
        task: ProgressTask,
        types: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Write the answers to ``ids``, whose token types are ``types`` or 0, into ``into``, one a text."""
        self._check(ids, batch_size)
        plan = partial(length_buckets, [len(row) for row in ids], rows=batch_size)

        def work(session: Any, rows: list[int]) -> None:
            padded = self._padded([ids[row] for row in rows])
            kinds = None if types is None else _filled([types[row] for row in rows], padded[0].shape[1], 0)
            for row, answer in zip(rows, self._answered(session, *padded, kinds), strict=True):
                into[row] = answer[: len(ids[row])] if self.by_token else answer

        workers = self._workers
        batches = plan(tokens=TOKENS_PER_CORE if workers else _TOKENS_ELSEWHERE)
        if workers is not None and workers.pay(len(batches)):
            for rows in workers.run(work, batches):
                task.advance(len(rows))
            return
        for rows in plan(tokens=TOKENS_PER_CORE * workers.count) if workers else batches:
            work(self.session, rows)
            task.advance(len(rows))

    def forward(self, input_ids: Ids, attention_mask: Ids) -> dict[str, Vectors]:
        """Every output of the graph by name, for ids and mask of shape ``[batch, seq]``."""
        found = self._run(self.session, self._outputs, input_ids, attention_mask)
        return dict(zip(self._outputs, found, strict=True))

    def _run(
        self,
        session: Any,
        outputs: list[str],
        input_ids: Ids,
        attention_mask: Ids,
        types: Ids | None = None,
    ) -> list[Vectors]:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self.section.inputs:
            feeds["token_type_ids"] = np.zeros_like(input_ids) if types is None else types
        feeds = {name: feeds[name] for name in self.section.inputs}
        with graph_errors_are_typed("the graph failed on a batch"):
            found: list[Vectors] = session.run(outputs, feeds)
            return found

    def _answered(
        self, session: Any, input_ids: Ids, attention_mask: Ids, types: Ids | None = None
    ) -> Vectors:
        output, width = self._answer
        (vectors,) = self._run(session, [output], input_ids, attention_mask, types)
        if vectors.shape != (*input_ids.shape[: 2 if self.by_token else 1], width):
            raise BundleError(
                "the graph is not the one that the manifest describes",
                why=f"its {output} is {list(vectors.shape)}, the manifest says {width} wide",
            )
        return vectors

    def _padded(self, rows: list[Sequence[int]]) -> tuple[Ids, Ids]:
        longest = max(map(len, rows))
        return _filled(rows, longest, self.tokenizer.pad_id or 0), _filled(
            [[1] * len(row) for row in rows], longest, 0
        )

    def _check_embeds(self) -> None:
        if self.labels:
            raise InputError(
                "this bundle is a classifier: it has labels, not embeddings",
                fix=f"use: edgepress {self.section.verb[1]}",
            )

    def _check(self, ids: Sequence[Sequence[int]], batch_size: int) -> None:
        if self._answer[0] not in self._outputs and self.labels:
            raise BundleError(
                "the graph is not the one that the manifest describes", why="it has no logits of labels"
            )
        if not self.labels and (self.section.pooling is None or POOLED not in self._outputs):
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


def _filled(rows: Sequence[Sequence[int]], width: int, value: int) -> Ids:
    """``rows`` as one array ``[rows, width]``, ``value`` behind each."""
    found = np.full((len(rows), width), value, np.int64)
    for index, row in enumerate(rows):
        found[index, : len(row)] = row
    return found
