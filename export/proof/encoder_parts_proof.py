"""Every part of an encoder's graph (what enters its blocks, each block, what is behind them) against torch's
own, on what that reads of real text or images: with float weights, and with the stored weights and exact
arithmetic.

A graph may pack the tokens of a batch, one row after the other without padding: then so are the states that
its parts read.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...terminal.progress import ProgressTask
from .distances import elementwise_bound
from .drive import Floats
from .part_distances import CODES, FLOAT, Difference, PartFindings, allowed, largest
from .part_graphs import PartGraphs, PartRunner
from .streamed import ROUNDINGS, States
from .streamed_stacks import Feeds, StreamedEncoder

Graph = Callable[[int], AbstractContextManager[PartRunner]]
Outputs = dict[str, Floats]


class EncoderPartsProof:
    """The proof of the parts ``graphs`` of ``model`` on ``cases``; the states of ``texts`` are computed with
    them. ``rounds``: anything in the graph does.
    """

    def __init__(
        self,
        model: StreamedEncoder,
        graphs: PartGraphs,
        cases: Sequence[Feeds],
        texts: Sequence[Feeds],
        *,
        rounds: bool,
    ) -> None:
        self.model, self.graphs, self.cases, self.rounds = model, graphs, cases, rounds
        self.batches = [*cases, *texts]
        self.findings, self._packs = PartFindings(), False
        self._forms: list[tuple[str, Graph, Sequence[int]]] = [(FLOAT, graphs.shipped, range(len(cases)))]
        if rounds:
            last = range(len(cases) - 1, len(cases))  # the most tokens
            self._forms = [(FLOAT, graphs.with_float_weights, range(len(cases))), (CODES, graphs.exact, last)]

    def run(self, task: ProgressTask) -> tuple[list[States], list[States]]:
        """Prove part after part; returns what leaves the last block of the cases and texts, without any
        rounding beyond that of the linears' weights, and as exports store the model. ``task`` advances by one
        for each block, and by one before.
        """
        model = self.model
        task.advance(0, model.source.anatomy.embedding)
        plain = model.entered_by(self.batches)
        stored = model.entered_by(self.batches, rounded=True) if self.rounds else plain
        self._entrance(plain, stored)
        task.advance(1)
        for index, block in enumerate(model.blocks):
            task.advance(0, block.prefix)
            with model.block(index) as module:
                left = model.through(module, index, plain)
                stored = model.through(module, index, stored, model.as_stored) if self.rounds else left
                if self.rounds:
                    weights = module.named_parameters()
                    self.graphs.held = {f"{block.prefix}.{name}": weight.data for name, weight in weights}
            task.advance(0.5, block.prefix)
            self._block(index, plain, left)
            plain = left
            task.advance(0.5, block.prefix)
        return plain, stored

    def behind(self, expected: Sequence[Outputs], left: Sequence[States]) -> None:
        """Hold what is behind the last block, of the states that ``left`` it, to what torch makes of them."""
        place = len(self.graphs.parts) - 1
        part = self.graphs.parts[place]
        for what, graph, cases in self._forms:
            with graph(place) as runner:
                found = [dict(zip(part.outputs, self._fed(runner, at, left), strict=True)) for at in cases]
            wanted = [expected[at] for at in cases]
            worst, size = largest_difference(found, wanted, [self.cases[at] for at in cases])
            self.findings.equal(what, [Difference(worst, elementwise_bound(size), part.name)])

    def found(self) -> dict[str, Any]:
        """For the manifest: the largest differences."""
        return self.findings.described(len(self.graphs.parts), len(self.cases), rounds=self.rounds)

    def _entrance(self, plain: Sequence[States], stored: Sequence[States]) -> None:
        for (what, graph, cases), states in zip(self._forms, (plain, stored), strict=False):
            worst: list[Difference] = []
            with graph(0) as runner:
                for at in cases:
                    (found,) = runner.alone(with_types(self.cases[at]))
                    self._packs = found.ndim == 2
                    right = self._real(states[at].hidden, at)
                    worst.append(_difference(self._real(found, at), right, right, self.graphs.parts[0].name))
            self.findings.equal(what, worst)

    def _block(self, index: int, entered: Sequence[States], left: Sequence[States]) -> None:
        place, name = index + 1, self.model.blocks[index].prefix

        def rounding() -> float:
            with self.model.block(index) as module:
                others = [
                    self.model.through(module, index, entered[: len(self.cases)], change)
                    for change in ROUNDINGS
                ]
            shares = [
                _difference(self._real(one.hidden, at), *self._pair(entered, left, at), name).share
                for states in others
                for at, one in enumerate(states)
            ]
            return max(shares)

        for what, graph, cases in self._forms:
            with graph(place) as runner:
                found = [self._real(self._fed(runner, at, entered)[0], at) for at in cases]
            pairs = [
                _difference(one, *self._pair(entered, left, at), name)
                for one, at in zip(found, cases, strict=True)
            ]
            self.findings.equal(what, pairs, rounding)

    def _pair(self, entered: Sequence[States], left: Sequence[States], at: int) -> tuple[Floats, Floats]:
        """What left a block, and what the block added to its states."""
        right = self._real(left[at].hidden, at)
        return right, right - self._real(entered[at].hidden, at)

    def _fed(self, runner: PartRunner, at: int, states: Sequence[States]) -> list[NDArray[Any]]:
        """A part's outputs of the case ``at``, into which ``states`` go as its graph lays them out."""
        (name,), hidden = runner.part.inputs, states[at].hidden
        values = self._real(hidden, at) if self._packs else hidden.numpy()
        return runner.alone({**with_types(self.cases[at]), name: values})

    def _real(self, states: Tensor | NDArray[Any], at: int) -> Floats:
        """``[tokens, hidden]`` of the real tokens of a case; states that are packed are that."""
        values = states.numpy() if isinstance(states, Tensor) else states
        if values.ndim == 2:
            return values
        chosen: Floats = values[mask_of(self.cases[at], values.shape).astype(bool)]
        return chosen


def largest_difference(
    found: Sequence[Outputs], expected: Sequence[Outputs], batches: Sequence[Feeds]
) -> tuple[float, float]:
    """Between the outputs of each batch, of real tokens where they are of tokens; and the largest value."""
    worst = size = 0.0
    for ours, theirs, feeds in zip(found, expected, batches, strict=True):
        real = mask_of(feeds, theirs["last_hidden_state"].shape).astype(bool)
        for name, values in theirs.items():
            chosen = real if values.ndim == 3 else np.ones(len(values), bool)
            worst = float(np.max([worst, np.abs(ours[name][chosen] - values[chosen]).max()]))
            size = max(size, float(np.abs(values[chosen]).max()))
    return worst, size


def mask_of(feeds: Feeds, shape: Sequence[int]) -> Any:
    """``[batch, tokens]``, of images nothing but ones."""
    return feeds.get("attention_mask", np.ones(shape[:2], np.int64))


def with_types(feeds: Feeds) -> Feeds:
    """Also token types, which are all the first."""
    ids = feeds.get("input_ids")
    return feeds if ids is None else {**feeds, "token_type_ids": np.zeros_like(ids)}


def _difference(found: Floats, right: Floats, added: Floats, module: str) -> Difference:
    """Of states ``[tokens, hidden]`` from the ``right`` ones, of which ``module`` has ``added`` a part."""
    return largest(found - right, allowed(added, right), module)
