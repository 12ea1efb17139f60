"""Where tokens and sounds enter the two graphs of an encoder–decoder, against torch: the embedding of each
stack, the spectra of a sound, and what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from ..graph.audio_nodes import SOUND
from ..graph.encoder_decoder_nodes import SPECTRA
from .distances import elementwise_bound
from .drive import Ids
from .encoder_decoder_cases import Case
from .part_distances import Case as PartCase
from .part_distances import Difference, Expected, differences
from .part_findings import CODES, FLOAT
from .part_graphs import PartGraphs
from .streamed_pair import PairStates, StreamedPair


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
