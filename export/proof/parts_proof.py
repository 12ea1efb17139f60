"""Every part of a decoder's graph (embedding, each block with the norm behind it, head) against torch's own,
on what that reads of real text: with float weights, with the stored weights and exact arithmetic, and as it
ships.

Attention is causal, so that the outputs of a prefix are a prefix of the outputs, at every batch, length and
depth of the cache.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...compress.model.block_anatomy import Norm
from ...compress.model.skeleton import Head
from ...terminal.progress import ProgressTask
from .drive import Floats, Ids
from .part_distances import (
    CODES,
    FLOAT,
    Case,
    Difference,
    Expected,
    PartFindings,
    differences,
    distances,
    largest_differences,
    spread,
)
from .part_graphs import PartGraphs
from .streamed import ROUNDINGS, States, StreamedModel

BATCHES, LENGTHS, DEPTHS = (1, 3), (1, 7, 33), (0, 1, 63)
# Rows of the vocabulary whose float logits are compared at once.
_ROWS = 8192


@dataclass(frozen=True)
class Entered:
    """What a block reads: states, and the norm of them ``[rows, tokens, hidden]``."""

    states: States
    normed: Tensor

    def arrays(self) -> tuple[Floats, Floats]:
        """Both in numpy's terms."""
        return self.states.hidden.numpy(), self.normed.numpy()


@dataclass(frozen=True)
class Streams:
    """Rows without any rounding beyond that of the linears' weights, and as exports store the model."""

    plain: Entered
    stored: Entered


class PartsProof:
    """The proof of the parts ``graphs`` of ``model`` on ``ids [rows, tokens]``; whether anything in the graph
    ``rounds``.
    """

    def __init__(self, model: StreamedModel, graphs: PartGraphs, ids: Ids, *, rounds: bool) -> None:
        self.model, self.graphs, self.ids, self.rounds = model, graphs, ids, rounds
        self.anatomy = model.source.anatomy
        self.cases = _cases(ids.shape[1])
        self.findings = PartFindings()
        self._equal = self.findings.equal

    def run(self, task: ProgressTask) -> Streams:
        """Prove part after part; returns what the head reads."""
        task.advance(0, self.anatomy.embedding)
        streams = self._embedding()
        task.advance(1)
        for index in range(len(self.anatomy.blocks)):
            streams = self._block(index, streams, task)
        task.advance(0, "head")
        self._head(streams)
        task.advance(1)
        return streams

    def found(self) -> dict[str, Any]:
        """For the manifest: the largest differences, and of the parts as they ship the largest distance."""
        return self.findings.described(len(self.graphs.parts), len(self.cases), rounds=self.rounds)

    def _embedding(self) -> Streams:
        plain = self._entered(rounded=False)
        stored = self._entered(rounded=True) if self.rounds else plain
        if not self.rounds:
            self._equal(FLOAT, differences(self.graphs.shipped(0), _looked_up(self.ids, plain), self.cases))
            return Streams(plain, stored)
        ranks, rows = self.model.looked_up(self.ids)
        graph, expected = self.graphs.with_float_weights(0, rows), _looked_up(ranks, plain)
        self._equal(FLOAT, differences(graph, expected, self.cases))
        self._equal(CODES, differences(self.graphs.exact(0), _looked_up(self.ids, stored), self.cases))
        return Streams(plain, stored)

    def _entered(self, *, rounded: bool) -> Entered:
        states = self.model.embedded(self.ids, rounded=rounded)
        return Entered(states, self.model.normed(self.anatomy.blocks[0].entry_norm, states.hidden))

    def _block(self, index: int, entered: Streams, task: ProgressTask) -> Streams:
        prefix = self.anatomy.blocks[index].prefix
        task.advance(0, prefix)
        left = self._torch_block(index, entered)
        task.advance(0.25, prefix)
        expected = self._expected(entered.plain, left.plain)

        def rounding() -> float:
            return self._spread(index, entered.plain, expected)

        graph = self.graphs.with_float_weights if self.rounds else self.graphs.shipped
        self._equal(FLOAT, differences(graph(index + 1), expected, self.cases), rounding)
        task.advance(0.25, prefix)
        if self.rounds:
            self._equal(CODES, differences(self.graphs.exact(index + 1), expected, self.cases[:1]), rounding)
            task.advance(0.25, prefix)
            self._as_it_ships(index, entered.stored, left.stored)
        task.advance(0.25 if self.rounds else 0.5, prefix)
        return left

    def _torch_block(self, index: int, entered: Streams) -> Streams:
        """``entered`` behind the block ``index``, whose weights are then at hand for the graph."""
        model, prefix = self.model, self.anatomy.blocks[index].prefix
        with model.block(index) as module:
            plain = model.run(module, index, entered.plain.states)
            stored = plain
            if self.rounds:
                stored = model.run(module, index, entered.stored.states, model.as_stored)
                weights = module.named_parameters()
                self.graphs.held = {f"{prefix}.{name}": weight.data for name, weight in weights}
        norm = self._following(index)
        left = Entered(plain, model.normed(norm, plain.hidden))
        return Streams(left, Entered(stored, model.normed(norm, stored.hidden)) if self.rounds else left)

    def _following(self, index: int) -> Norm | None:
        """The norm behind the block ``index``."""
        blocks = self.anatomy.blocks
        return blocks[index + 1].entry_norm if index + 1 < len(blocks) else self.anatomy.final_norm

    def _expected(self, entered: Entered, left: Entered) -> Expected:
        added = (left.states.hidden - entered.states.hidden).numpy(), left.normed.numpy()
        return Expected(self.ids, entered.arrays(), left.arrays(), added)

    def _spread(self, index: int, entered: Entered, expected: Expected) -> float:
        """How far torch's own roundings reach in the block ``index``, as a share of the bound."""
        norm = self._following(index)
        with self.model.block(index) as module:
            hidden = [
                self.model.run(module, index, entered.states, change).hidden.to(torch.float32)
                for change in ROUNDINGS
            ]
        return spread(expected, ((one.numpy(), self.model.normed(norm, one).numpy()) for one in hidden))

    def _as_it_ships(self, index: int, entered: Entered, left: Entered) -> None:
        part, expected = self.graphs.parts[index + 1], self._expected(entered, left)
        with self.graphs.shipped(index + 1) as runner:
            found = distances(runner.run(self.ids, entered.arrays()), expected)

        def rounding() -> list[float]:
            with self.model.block(index) as module:
                states = self.model.run(module, index, entered.states, self.model.with_rounded_inputs)
            normed = self.model.normed(self._following(index), states.hidden)
            return distances(Entered(states, normed).arrays(), expected)

        self.findings.near(found, part, rounding)

    def _head(self, streams: Streams) -> None:
        """The logits of the first row: a row of a large vocabulary is large, and rows are alike to a head."""
        normed = streams.plain.normed[:1], streams.stored.normed[:1]
        HeadProof(self.model, self.graphs, self.ids[:1], self._equal).run(normed, normed, rounds=self.rounds)


def _looked_up(ids: Ids, entered: Entered) -> Expected:
    arrays = entered.arrays()
    return Expected(ids, (ids,), arrays, arrays)


def _cases(length: int) -> list[Case]:
    """The longest first, of one row without a cache."""
    found = [(1, 0, length)]
    for batch in BATCHES:
        for depth in DEPTHS:
            for new in LENGTHS:
                # GroupQueryAttention extends the cache of a whole batch one token at a time only.
                if depth + new <= length and not (batch > 1 and depth and new > 1):
                    found.append((batch, depth, new))
    return found


class HeadProof:
    """Of the last part of ``graphs`` for the tokens ``ids [1, tokens]``; ``equal`` holds what is found to its
    bound.
    """

    def __init__(
        self,
        model: StreamedModel,
        graphs: PartGraphs,
        ids: Ids,
        equal: Callable[[str, Sequence[Difference]], None],
    ) -> None:
        self.model, self.graphs, self.ids, self.equal = model, graphs, ids, equal
        self.last, self.cases = len(graphs.parts) - 1, [(1, 0, ids.shape[1])]

    def run(self, entered: tuple[Tensor, Tensor], normed: tuple[Tensor, Tensor], *, rounds: bool) -> None:
        """``entered`` is what the part reads, ``normed`` that behind the norm: ``[1, tokens, hidden]``
        without rounding, and as the model is stored.
        """
        graphs, last, cases = self.graphs, self.last, self.cases
        if not rounds:
            with self.model.head() as head:
                expected = self._logits(head, entered[0], normed[0])
                self.equal(FLOAT, differences(graphs.shipped(last), expected, cases))
            return
        with self.model.head() as head:
            for found in self._float_logits(head, entered[0], normed[0]):
                self.equal(FLOAT, found)
        with self.model.head(rounded=True) as head:
            expected = self._logits(head, entered[1], normed[1])
            self.equal(CODES, differences(graphs.exact(last), expected, cases))

    def _float_logits(self, head: Head, entered: Tensor, normed: Tensor) -> Iterator[list[Difference]]:
        vocabulary = self.model.source.anatomy.vocab_size
        parts = [head.part(slice(at, at + _ROWS)) for at in range(0, vocabulary, _ROWS)]
        with self.graphs.with_float_weights(self.last, self._weights(parts[0])) as runner:
            for part in parts:
                runner.driver.weights.update(self._weights(part))
                yield largest_differences(runner, self._logits(part, entered, normed), self.cases)

    def _weights(self, part: Head) -> dict[str, Floats]:
        anatomy = self.model.source.anatomy
        module = anatomy.embedding if anatomy.tied or anatomy.head is None else anatomy.head
        assert isinstance(part.table, Tensor)
        found = {f"{module}.weight": part.table.float().numpy()}
        if part.bias is None:
            return found
        if anatomy.head_bias is not None:  # of Marian and BART, which is no bias of a linear
            return found | {anatomy.head_bias: part.bias[None].numpy()}
        return found | {f"{anatomy.head}.bias": part.bias.numpy()}

    def _logits(self, head: Head, entered: Tensor, normed: Tensor) -> Expected:
        logits = (head.logits(normed[0])[None].numpy(),)
        return Expected(self.ids, (entered.numpy(),), logits, logits)
