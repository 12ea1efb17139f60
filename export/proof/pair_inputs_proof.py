"""Where tokens and sounds enter the two graphs of an encoder–decoder, against torch: the embedding of each
stack, the spectra of a sound, and what becomes of them.

The keys and values that the decoder of an encoder–decoder makes of what was read, against torch's: a part
of the encoder's graph for each block, or one of the decoder's for all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...compress.model.block_anatomy import Attention, BlockAnatomy
from ..graph.audio_nodes import SOUND
from ..graph.encoder_decoder_nodes import SPECTRA
from ..graph.hub_stacks import CROSSING
from .distances import elementwise_bound
from .drive import Ids
from .encoder_decoder_cases import Case
from .part_distances import CODES, FLOAT, Difference, Expected, differences
from .part_distances import Case as PartCase
from .part_graphs import PartGraphs, PartRunner
from .streamed_stacks import PairStates, StreamedPair

Pair = tuple[Tensor, Tensor]
Beside = dict[str, NDArray[Any]]


class PairEntrances:
    """The proof of the first parts of the ``encoder`` and the ``decoder`` of ``model`` on ``case``; ``equal``
    holds what is found to its bound. ``written_cases`` are for the decoder; ``rounds``: anything in the
    graphs does.
    """

    def __init__(
        self,
        model: StreamedPair,
        encoder: PartGraphs,
        decoder: PartGraphs,
        case: Case,
        equal: Callable[[str, Sequence[Difference]], None],
        written_cases: Sequence[PartCase],
        *,
        rounds: bool,
    ) -> None:
        self.model, self.encoder, self.decoder, self.case = model, encoder, decoder, case
        self.equal, self.written_cases, self.rounds = equal, written_cases, rounds

    def run(self, plain: PairStates, stored: PairStates) -> None:
        """``plain`` is what enters the first blocks in torch, ``stored`` the same of rounded tables."""
        case = self.case
        if case.sounds is None:
            pair, ids = (plain.hidden[0], stored.hidden[0]), case.given.astype(np.int64)
            self._looked_up(self.encoder, ids, pair, case.read_cases, case.lengths)
        else:
            self._heard(plain.hidden[0])
        pair = plain.waiting[0], stored.waiting[0]
        self._looked_up(self.decoder, case.decoder_ids, pair, self.written_cases)

    def _looked_up(
        self,
        graphs: PartGraphs,
        ids: Ids,
        pair: tuple[Tensor, Tensor],
        cases: Sequence[PartCase],
        lengths: tuple[int, ...] | None = None,
    ) -> None:
        plain, stored = (
            Expected(ids, (ids,), (rows.numpy(),), (rows.numpy(),), lengths=lengths) for rows in pair
        )
        place = graphs.place(self.model.source.anatomy.embedding)
        if not self.rounds:
            self.equal(FLOAT, differences(graphs.shipped(place), plain, cases))
            return
        ranks, rows = self.model.looked_up(ids)
        expected = Expected(ranks, (ranks,), plain.outputs, plain.added, lengths=lengths)
        self.equal(FLOAT, differences(graphs.with_float_weights(place, rows), expected, cases))
        self.equal(CODES, differences(graphs.exact(place), stored, cases))

    def _heard(self, states: Tensor) -> None:
        """Spectra beside transformers' own, whose logarithms differ in more than the last digits; and the
        ``states`` that convolutions make of them, which are never rounded.
        """
        graphs, case = self.encoder, self.case
        assert case.sounds is not None
        given = np.asarray(case.given, np.float32)
        if graphs.parts[0].name == SOUND:
            with graphs.shipped(0) as runner:
                (spectra,) = runner.run(case.mask, [case.sounds])
            worst, bound = float(np.abs(spectra - given).max()), elementwise_bound(float(np.abs(given).max()))
            self.equal(FLOAT, [Difference(worst, bound, SOUND)])
        expected = Expected(case.mask, (given,), (states.numpy(),), (states.numpy(),))
        self.equal(FLOAT, differences(graphs.shipped(graphs.place(SPECTRA)), expected, case.read_cases))


class PairCrossings:
    """The proof of keys and values on ``case``; ``equal`` holds what is found to its bound.

    Attributes:
        rounds: whether anything in the graphs does.
        by_head: whether the ``decoder`` computes them itself, as ``[rows, heads, tokens, size]``; else the
            ``encoder`` gives them.
    """

    def __init__(
        self,
        encoder: PartGraphs,
        decoder: PartGraphs,
        case: Case,
        equal: Callable[[str, Sequence[Difference]], None],
        *,
        rounds: bool,
        by_head: bool,
    ) -> None:
        self.encoder, self.decoder, self.case, self.equal = encoder, decoder, case, equal
        self.rounds, self.by_head = rounds, by_head
        self._computed: list[Tensor] = []

    def of_block(self, block: BlockAnatomy, read: Pair, plain: Pair, stored: Pair) -> tuple[Beside, Beside]:
        """What the graph of ``block`` is given in float, and as it ships; ``plain`` and ``stored`` are
        torch's keys and values, of what was ``read`` without rounding and as the model is stored.
        """
        if self.by_head:
            self._computed += plain
            part = _cross(block)
            return self._named(block, _apart(part, plain)), self._named(block, _apart(part, stored))
        place, expected = self._place(block), self.case.of_read(read[0], *plain)
        graph = self.encoder.with_float_weights if self.rounds else self.encoder.shipped
        self.equal(FLOAT, differences(graph(place), expected, self.case.read_cases))
        if self.rounds:
            self.equal(CODES, differences(self.encoder.exact(place), expected, self.case.read_cases[:1]))
        with self.encoder.shipped(place) as runner:
            found = self._run(runner, self.case.of_read(read[1], *stored))
        return self._named(block, [one.numpy() for one in plain]), self._named(block, found)

    def coded(self, block: BlockAnatomy, read: Tensor) -> Beside:
        """What the graph of ``block`` is given in codes, of what was ``read`` without rounding."""
        with self.encoder.exact_but_for_caches(self._place(block)) as runner:
            return self._named(block, self._run(runner, self.case.of_read(read)))

    def of_all_blocks(self, read: Tensor) -> None:
        """Hold the decoder's own to torch's, of the first row alone."""
        row = slice(0, None if self.case.lengths is None else self.case.lengths[0])
        values, states = tuple(one[:1, row].numpy() for one in self._computed), read[:1, row].numpy()
        beside = {"use_cache_branch": np.array([False])}
        expected = Expected(np.zeros(states.shape[:2], np.int64), (states,), values, values, beside)
        place, cases = self.decoder.place(CROSSING), [(1, 0, states.shape[1])]
        graph = self.decoder.with_float_weights if self.rounds else self.decoder.shipped
        self.equal(FLOAT, differences(graph(place), expected, cases))
        if self.rounds:
            self.equal(CODES, differences(self.decoder.exact(place), expected, cases))

    def _run(self, runner: PartRunner, expected: Expected) -> list[NDArray[Any]]:
        lengths = None if expected.lengths is None else list(expected.lengths)
        return runner.run(expected.ids, expected.inputs, 0, lengths, expected.beside)

    def _place(self, block: BlockAnatomy) -> int:
        return self.encoder.place(_cross(block).module)

    def _named(self, block: BlockAnatomy, values: Sequence[NDArray[Any]]) -> Beside:
        """As the part of ``block`` calls them."""
        part = self.decoder.parts[self.decoder.place(block.prefix)]
        return dict(zip(part.inputs[1:], values, strict=True))


def _cross(block: BlockAnatomy) -> Attention:
    assert block.cross is not None
    return block.cross


def _apart(part: Attention, values: Pair) -> list[NDArray[Any]]:
    """``[rows, heads, tokens, size]`` of ``[rows, tokens, heads · size]``."""
    heads = [one.view(*one.shape[:2], part.kv_heads, part.head_dim).swapaxes(1, 2) for one in values]
    return [one.contiguous().numpy() for one in heads]
