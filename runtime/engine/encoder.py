"""``Encoder``: sentence embeddings, or the logits of a classifier of texts or tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...terminal.progress import Progress, Silent
from ..bundle.bundle import Bundle
from ..bundle.graph_sections import EncoderSection
from ..session.threads import thread_budget
from ..text.tokenizer import Tokenizer
from .encoder_answers import EncoderAnswers, Ids, Vectors, WorkerThreads
from .load import LoadingGraph, load_graph

BATCH_SIZE = 32
# Texts that are tokenized and sorted together: what bounds the memory of a stream.
WINDOW = 4096


class Encoder:
    """An encoder graph with its tokenizer.

    Attributes:
        max_length: tokens of a text that are read, special tokens included; the rest is cut off.
        hidden_size: width of an embedding.
        labels: of a classifier; empty for a sentence encoder.
        by_token: whether each token has logits of a classifier, and not each text.
    """

    def __init__(
        self,
        session: Any,
        section: EncoderSection,
        tokenizer: Tokenizer,
        workers: WorkerThreads | None = None,
    ) -> None:
        self.session, self.section, self.tokenizer = session, section, tokenizer
        self.max_length, self.hidden_size = section.max_length, section.hidden_size
        self.labels = tuple(section.labels or ())
        self._graph = EncoderAnswers(session, section, workers, tokenizer.pad_id or 0)
        self.by_token = self._graph.by_token

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
        """
        section = bundle.encoder
        if section.image is not None:
            does, call = section.verb
            raise InputError(f"{bundle.path} {does} text", fix=f"use: edgepress {call}")
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
        self,
        texts: Sequence[str],
        batch_size: int = BATCH_SIZE,
        *,
        prompt: str | None = None,
        progress: Progress | None = None,
    ) -> Vectors:
        """Embeddings ``[len(texts), hidden_size]`` in float32, normalised if the model says so. In front of
        each text goes the ``prompt`` of this name: the model's default for None, none for an empty name.
        """
        self._check_embeds()
        if before := self.section.in_front(prompt):
            texts = [before + text for text in texts]
        return self._read(texts, batch_size, progress, "embedding")

    def logits(
        self, texts: Sequence[str], batch_size: int = BATCH_SIZE, *, progress: Progress | None = None
    ) -> Vectors:
        """What a classifier says of each text: ``[len(texts), labels]`` in float32."""
        self._check_labelled()
        return self._read(texts, batch_size, progress, "classifying")

    def pair_logits(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int = BATCH_SIZE,
        *,
        progress: Progress | None = None,
    ) -> Vectors:
        """What a classifier says of each pair of texts: ``[len(pairs), labels]`` in float32."""
        self._check_labelled()
        result = self._graph.empty(len(pairs))
        with (progress or Silent()).task("reading pairs", len(pairs)) as task:
            for start in range(0, len(pairs), WINDOW):
                some = pairs[start : start + WINDOW]
                found = self.tokenizer.encode_pairs(some, max_length=self.max_length)
                ids, types = ([one[part] for one in found] for part in range(2))
                self._graph.fill(ids, batch_size, result[start : start + WINDOW], task, types)
        return result

    def token_logits(
        self,
        ids: Sequence[Sequence[int]],
        batch_size: int = BATCH_SIZE,
        *,
        types: Sequence[Sequence[int]] | None = None,
        progress: Progress | None = None,
    ) -> list[Vectors]:
        """What a classifier of tokens or spans says of each of ``ids``, whose token types are ``types`` or 0:
        ``[tokens, labels]`` a text, in float32.
        """
        if not self.by_token:
            raise InputError("this bundle labels no tokens", fix=f"use: edgepress {self.section.verb[1]}")
        result: list[Vectors] = [self._graph.empty(0)] * len(ids)
        with (progress or Silent()).task("tagging", len(ids)) as task:
            self._graph.fill(ids, batch_size, result, task, types)
        return result

    def _check_labelled(self) -> None:
        if not self.labels or self.by_token:
            raise InputError(
                "this bundle has no labels of texts", fix=f"use: edgepress {self.section.verb[1]}"
            )

    def _read(self, texts: Sequence[str], batch_size: int, progress: Progress | None, what: str) -> Vectors:
        result = self._graph.empty(len(texts))
        with (progress or Silent()).task(what, len(texts)) as task:
            for start in range(0, len(texts), WINDOW):
                ids = self.tokenizer.encode_batch(texts[start : start + WINDOW], max_length=self.max_length)
                self._graph.fill(ids, batch_size, result[start : start + WINDOW], task)
        return result

    def encode_stream(
        self, texts: Iterable[str], batch_size: int = BATCH_SIZE, *, prompt: str | None = None
    ) -> Iterator[Vectors]:
        """:meth:`encode` for texts without end: vectors of up to :data:`WINDOW` texts at a time, in order."""
        source = iter(texts)
        while window := list(islice(source, WINDOW)):
            yield self.encode(window, batch_size, prompt=prompt)

    def embed_ids(
        self, ids: Sequence[Sequence[int]], batch_size: int = BATCH_SIZE, *, progress: Progress | None = None
    ) -> Vectors:
        """:meth:`encode` for token ids, special tokens included. A batch has at most ``batch_size`` texts,
        and on a CPU no more tokens than its cores work on at full speed.
        """
        self._check_embeds()
        return self.answers(ids, batch_size, progress=progress)

    def answers(
        self, ids: Sequence[Sequence[int]], batch_size: int = BATCH_SIZE, *, progress: Progress | None = None
    ) -> Vectors:
        """What the bundle is for: as :meth:`embed_ids`, or a classifier's logits, a row a text or token."""
        if self.by_token:
            return np.concatenate(self.token_logits(ids, batch_size, progress=progress))
        result = self._graph.empty(len(ids))
        with (progress or Silent()).task("reading", len(ids)) as task:
            self._graph.fill(ids, batch_size, result, task)
        return result

    def forward(self, input_ids: Ids, attention_mask: Ids) -> dict[str, Vectors]:
        """Every output of the graph by name, for ids and mask of shape ``[batch, seq]``."""
        return self._graph.forward(input_ids, attention_mask)

    def _check_embeds(self) -> None:
        if self.labels:
            raise InputError(
                "this bundle is a classifier: it has labels, not embeddings",
                fix=f"use: edgepress {self.section.verb[1]}",
            )


class EncoderModel:
    """What runs the graph of an encoder's bundle, its tokenizer, and the labels that it gives, if any.

    Raises:
        InputError: the bundle is a decoder.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, provider: str = "cpu") -> None:
        self.bundle = bundle
        self.encoder = Encoder.open(bundle, threads, provider=provider)
        self.tokenizer, self.labels = self.encoder.tokenizer, self.encoder.labels
