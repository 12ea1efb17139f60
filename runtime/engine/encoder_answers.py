"""``EncoderAnswers``: what an encoder's graph gives for token ids of any lengths, in padded batches.

A batch is padded to its longest text and no further. Texts are sorted by length, so that a batch holds texts
of one size and little is spent on padding; the results come back in the order of the texts. On a CPU many
texts are read by a batch a core, each on one thread: the cores then never wait for each other, as they do
after every node of a batch that they share.

The span of a text that answers a question: the likeliest pair of a first and a last token.

Devlin et al., BERT, 2018, arXiv 1810.04805, section 4.2. The probability is the product of that of the first
token and that of the last among the text's tokens, as transformers' pipeline has it.

``LabelForm``: how a classifier's logits are read, as rows of which one entry each holds.

How an encoder's texts become batches of about one length, and how batches run on worker threads.

On a CPU a batch gains nothing beyond a few hundred tokens: the matrix products are at full speed there, and
the values between them no longer fit the cache. Threads that share one batch meet after every node of the
graph, a hundred times or more; threads with a batch each never meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from ...errors import BundleError, InputError
from ...files.limits import address_space_limit
from ...terminal.progress import ProgressTask
from ..bundle.graph_sections import EncoderSection
from ..session.session import graph_errors_are_typed

# A GPU wants many tokens at once.
_TOKENS_ELSEWHERE = 16384
POOLED = "sentence_embedding"
LOGITS = "logits"
Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
LONGEST = 30  # tokens of an answer
# Measured on a core with 1 MB of second-level cache: benchmarks/lab/results/peers-encoders.md.
TOKENS_PER_CORE = 256
Item = TypeVar("Item")
# Fewer batches a thread than this do not pay for opening a second session.
WORTH = 4


class EncoderAnswers:
    """The graph of ``section`` in a ``session``, and on ``workers`` where there are some.

    Attributes:
        output, width: the output that is the answer, and its last dimension.
        by_token: whether each token has an answer, and not each text.
    """

    def __init__(
        self, session: Any, section: EncoderSection, workers: WorkerThreads | None, pad: int
    ) -> None:
        self.session, self.section, self._workers, self._pad = session, section, workers, pad
        self.by_token = bool(section.labels) and section.labelled != "text"
        self.output, self.width = POOLED, section.embedding_size or section.hidden_size
        if section.labels:
            self.output, self.width = LOGITS, len(section.labels)
        self._outputs = [node.name for node in session.get_outputs()]
        inputs = {node.name for node in session.get_inputs()}
        if inputs != set(section.inputs):
            raise _not_described(f"it takes {sorted(inputs)}, the manifest says {sorted(section.inputs)}")

    def empty(self, count: int) -> Vectors:
        """Room for the answers to ``count`` texts: ``[count, width]``."""
        return np.empty((count, self.width), np.float32)

    def fill(
        self,
        ids: Sequence[Sequence[int]],
        batch_size: int,
        into: Vectors | MutableSequence[Vectors],
        task: ProgressTask,
        types: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Write the answers to ``ids``, whose token types are ``types`` or 0, into ``into``: the rows of an
        array, or the items of a list where each token has an answer. ``task`` advances by one a text.
        """
        self._check(ids, batch_size)
        plan = partial(length_buckets, [len(row) for row in ids], rows=batch_size)

        def work(session: Any, rows: list[int]) -> None:
            chosen = [ids[row] for row in rows]
            kinds = None if types is None else [types[row] for row in rows]
            answers = self._answers(session, chosen, kinds)
            if isinstance(into, np.ndarray):
                into[rows] = answers
                return
            for row, answer in zip(rows, answers, strict=True):
                into[row] = answer[: len(ids[row])]

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

    def _answers(self, session: Any, ids: list[Sequence[int]], types: list[Sequence[int]] | None) -> Vectors:
        longest = max(map(len, ids))
        if self.section.filled:  # with padding that is read
            longest = self.section.max_length
        padded, mask = _filled(ids, longest, self._pad), _filled([[1] * len(row) for row in ids], longest, 0)
        kinds = None if types is None else _filled(types, longest, 0)
        (found,) = self._run(session, [self.output], padded, mask, kinds)
        if found.shape != (*padded.shape[: 2 if self.by_token else 1], self.width):
            raise _not_described(
                f"its {self.output} is {list(found.shape)}, the manifest says {self.width} wide"
            )
        return found

    def _run(
        self, session: Any, outputs: list[str], input_ids: Ids, attention_mask: Ids, types: Ids | None = None
    ) -> list[Vectors]:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self.section.inputs:
            feeds["token_type_ids"] = np.zeros_like(input_ids) if types is None else types
        feeds = {name: feeds[name] for name in self.section.inputs}
        with graph_errors_are_typed("the graph failed on a batch"):
            found: list[Vectors] = session.run(outputs, feeds)
            return found

    def _check(self, ids: Sequence[Sequence[int]], batch_size: int) -> None:
        if self.output not in self._outputs and self.section.labels:
            raise _not_described("it has no logits of labels")
        if not self.section.labels and (self.section.pooling is None or POOLED not in self._outputs):
            raise BundleError(
                "this bundle has no sentence embeddings",
                why="its model card names no pooling, so the export gave none; a mean would be a guess",
                fix="export a sentence-transformers model, or read last_hidden_state through Encoder.forward",
            )
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, it must be at least 1")
        for row in ids:
            if not 0 < len(row) <= self.section.max_length:
                raise InputError(
                    f"a text of {len(row)} tokens does not fit this model: 1 to {self.section.max_length}"
                )


def _not_described(why: str) -> BundleError:
    return BundleError("the graph is not the one that the manifest describes", why=why)


def _filled(rows: Sequence[Sequence[int]], width: int, value: int) -> Ids:
    """``rows`` as one array ``[rows, width]``, ``value`` behind each."""
    found = np.full((len(rows), width), value, np.int64)
    for index, row in enumerate(rows):
        found[index, : len(row)] = row
    return found


def answer_span(logits: Vectors, starts: Sequence[int], ends: Sequence[int]) -> tuple[int, int, float] | None:
    """The characters where the answer begins and ends, and its probability; None where no token is of the
    text.

    Args:
        logits: ``[tokens, 2]`` of the first and the last token of the answer.
        starts, ends: characters of the text where each token begins and ends, −1 outside of it.
    """
    inside = np.flatnonzero(np.asarray(starts) >= 0)
    if not len(inside):
        return None
    first, last = (_probabilities(logits[inside, part].astype(np.float64)) for part in range(2))
    pairs = np.triu(np.outer(first, last))
    pairs -= np.triu(pairs, LONGEST)
    begin, end = np.unravel_index(pairs.argmax(), pairs.shape)
    return starts[inside[begin]], ends[inside[end]], float(pairs[begin, end])


def _probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp(logits - logits.max())
    found: NDArray[np.float64] = odds / odds.sum()
    return found


@dataclass(frozen=True)
class LabelForm:
    """What is ``labelled``: texts, tokens, or the span that is an answer; with ``several``, each label of a
    text holds or not, whatever the others do.
    """

    labelled: Literal["text", "token", "span", "image"] = "text"
    several: bool = False

    @property
    def by_token(self) -> bool:
        """Whether each token has logits, and not the text or image."""
        return self.labelled in ("token", "span")

    def rows(self, logits: Vectors) -> Vectors:
        """The logits of one text, ``[labels]`` or ``[tokens, labels]``, as ``[rows, choices]``: a row for the
        text, for each label, for each token; of a span one for its first token and one for its last.
        """
        if self.labelled == "span":
            return logits.T
        if self.several:
            return with_opposite(logits.reshape(-1, 1))
        return with_opposite(np.atleast_2d(logits))


def with_opposite(logits: Vectors) -> Vectors:
    """``logits [rows, labels]`` whose softmax are probabilities: beside a single label stands 0, that it does
    not hold.
    """
    if logits.shape[-1] > 1:
        return logits
    return np.concatenate([logits, np.zeros_like(logits)], axis=-1)


def length_buckets(lengths: Sequence[int], *, rows: int, tokens: int) -> list[list[int]]:
    """Indices of ``lengths`` in batches: each index once, the longest first.

    A batch has at most ``rows`` of them and, padded to its longest, at most ``tokens`` tokens; a text that is
    longer than that is a batch of its own. Within a batch lengths fall, and no later batch has a longer one.
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not room:
            batches.append([])
            room = max(1, min(rows, tokens // max(1, lengths[index])))
        batches[-1].append(index)
        room -= 1
    return batches


class WorkerThreads:
    """``count`` threads over the one session that ``open_one_thread`` makes when it is first needed."""

    def __init__(self, count: int, open_one_thread: Callable[[], Any]) -> None:
        self.count = count
        self._open = open_one_thread
        self._session: Any = None

    def pay(self, batches: int) -> bool:
        """Whether so many batches are better computed side by side."""
        return self.count > 1 and address_space_limit() is None and batches >= WORTH * self.count

    def run(self, work: Callable[[Any, Item], None], items: Sequence[Item]) -> Iterator[Item]:
        """``work(session, item)`` for all ``items``, which are yielded in their order as they are done.

        What ``work`` raises is raised here, and the items that nobody has begun are left.
        """
        from concurrent.futures import ThreadPoolExecutor

        if self._session is None:
            self._session = self._open()
        with ThreadPoolExecutor(self.count, thread_name_prefix="edgepress-worker") as executor:
            for item, _ in zip(
                items, executor.map(lambda item: work(self._session, item), items), strict=True
            ):
                yield item
