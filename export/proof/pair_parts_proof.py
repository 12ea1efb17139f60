"""Every part of the two graphs of an encoder–decoder (where tokens and sounds enter, each block of both
stacks, the keys and values that the decoder reads, head) against torch's own, on what that reads of real text
or sound: with float weights, with the stored weights and exact arithmetic, and as it ships.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...compress.text.token_batch import TokenBatch
from ...terminal.progress import ProgressTask
from ..graph.attention.cache_io import CODES as CACHED_CODES
from .distances import compare_caches
from .drive import Floats
from .encoder_decoder_cases import Case
from .pair_inputs_proof import PairCrossings, PairEntrances
from .part_distances import CODES, FLOAT, Expected, PartFindings, differences, distances, spread
from .part_distances import Case as PartCase
from .part_graphs import PartGraphs
from .parts_proof import HeadProof
from .streamed import ROUNDINGS, Change
from .streamed_stacks import PairStates, StreamedPair


@dataclass(frozen=True)
class PairStreams:
    """States without any rounding beyond that of the linears' weights, and as exports store the model."""

    plain: PairStates
    stored: PairStates


class PairPartsProof:
    """The proof of the parts of ``graphs``, the encoder's and the decoder's, of ``model`` on ``case``; the
    states of ``others`` are computed with it. ``rounds``: anything in the graphs does; ``by_head`` as
    :class:`.pair_inputs_proof.PairCrossings` has it.
    """

    def __init__(
        self,
        model: StreamedPair,
        graphs: tuple[PartGraphs, PartGraphs],
        case: Case,
        others: Sequence[TokenBatch],
        *,
        rounds: bool,
        by_head: bool,
    ) -> None:
        self.model, self.case, self.rounds, self.by_head = model, case, rounds, by_head
        self.encoder, self.decoder = graphs
        self.batches = [case.batch(), *others]
        self.blocks, self.anatomy = model.blocks, model.source.anatomy
        self.findings = PartFindings()
        self._equal = self.findings.equal
        # Where the sizes of a cache are open, the whole graph shows what comes behind one.
        self.written_cases = case.written_cases[: 2 if by_head else None]
        self.crossings = PairCrossings(*graphs, case, self._equal, rounds=rounds, by_head=by_head)
        self._coded: dict[str, Any] = {}

    def run(self, task: ProgressTask) -> PairStreams:
        """Prove part after part; returns what leaves the last block. ``task`` advances by one for each block,
        and by one at either end.
        """
        task.advance(0, self.anatomy.embedding)
        streams = self._entered()
        task.advance(1)
        for index, block in enumerate(self.blocks):
            task.advance(0, block.prefix)
            streams = self._crossed(streams) if index == self.model.first else streams
            prove = self._of_encoder if index < self.model.first else self._of_decoder
            streams = prove(index, streams, task)
        task.advance(0, "head")
        if self.by_head:
            self.crossings.of_all_blocks(streams.plain.read[0])
        self._head(streams)
        task.advance(1)
        return streams

    def found(self) -> dict[str, Any]:
        """For the manifest: the largest differences, and of the parts as they ship the largest distance."""
        parts = len(self.encoder.parts) + len(self.decoder.parts)
        cases = len(self.case.read_cases) + len(self.written_cases)
        found = self.findings.described(parts, cases, rounds=self.rounds)
        return found | ({"caches": self._coded} if self._coded else {})

    def _entered(self) -> PairStreams:
        plain = self.model.entered(self.batches)
        stored = self.model.entered(self.batches, rounded=True) if self.rounds else plain
        given = self.model, self.encoder, self.decoder, self.case, self._equal, self.written_cases
        PairEntrances(*given, rounds=self.rounds).run(plain, stored)
        return PairStreams(plain, stored)

    def _of_encoder(self, index: int, streams: PairStreams, task: ProgressTask) -> PairStreams:
        prefix = self.blocks[index].prefix
        with self.model.block(index) as module:
            left = self._left(module, index, streams)
        task.advance(0.25, prefix)
        plain = self.case.of_read(streams.plain.hidden[0], left.plain.hidden[0], adds=True)
        stored = self.case.of_read(streams.stored.hidden[0], left.stored.hidden[0], adds=True)
        self._exactly(index, self.encoder, streams, plain, self.case.read_cases)
        task.advance(0.5, prefix)
        self._as_it_ships(index, self.encoder, streams, stored)
        task.advance(0.25, prefix)
        return left

    def _of_decoder(self, index: int, streams: PairStreams, task: ProgressTask) -> PairStreams:
        model, block, coded = self.model, self.blocks[index], None
        with model.block(index) as module:
            left = self._left(module, index, streams)
            known = stored_known = model.keys_and_values(module, index, streams.plain)
            if self.rounds:
                stored_known = model.keys_and_values(module, index, streams.stored, model.as_stored)
            if model.kv_dtype in CACHED_CODES:
                coded = model.through(module, index, _first(streams.plain), model.with_codes)
        task.advance(0.25, block.prefix)
        read = streams.plain.read[0], streams.stored.read[0]
        given, shipped = self.crossings.of_block(block, read, known, stored_known)
        plain = self.case.of_written(streams.plain.hidden[0], left.plain.hidden[0], given)
        stored = self.case.of_written(streams.stored.hidden[0], left.stored.hidden[0], shipped)
        self._exactly(index, self.decoder, streams, plain, self.written_cases)
        task.advance(0.5, block.prefix)
        if coded is not None:
            self._cached_codes(index, plain, coded)
        self._as_it_ships(index, self.decoder, streams, stored)
        task.advance(0.25, block.prefix)
        return left

    def _left(self, module: nn.Module, index: int, streams: PairStreams) -> PairStreams:
        """``streams`` behind the block ``index``, whose weights are then at hand for both graphs."""
        plain = self.model.through(module, index, streams.plain)
        if not self.rounds:
            return PairStreams(plain, plain)
        prefix = self.blocks[index].prefix
        held = {f"{prefix}.{name}": weight.data for name, weight in module.named_parameters()}
        self.encoder.held, self.decoder.held = dict(held), dict(held)
        return PairStreams(plain, self.model.through(module, index, streams.stored, self.model.as_stored))

    def _exactly(
        self,
        index: int,
        graphs: PartGraphs,
        streams: PairStreams,
        expected: Expected,
        cases: Sequence[PartCase],
    ) -> None:
        """A block with float weights, and with the stored ones."""
        place = graphs.place(self.blocks[index].prefix)

        def rounding() -> float:
            return spread(expected, ([one] for one in self._again(index, streams.plain, ROUNDINGS)))

        graph = graphs.with_float_weights if self.rounds else graphs.shipped
        self._equal(FLOAT, differences(graph(place), expected, cases), rounding)
        if self.rounds:
            self._equal(CODES, differences(graphs.exact(place), expected, cases[:1]), rounding)

    def _as_it_ships(self, index: int, graphs: PartGraphs, streams: PairStreams, expected: Expected) -> None:
        if not self.rounds:
            return
        place = graphs.place(self.blocks[index].prefix)
        lengths = None if expected.lengths is None else list(expected.lengths)
        with graphs.shipped(place) as runner:
            found = runner.run(expected.ids, expected.inputs, 0, lengths, expected.beside)

        def noise() -> list[float]:
            return distances(self._again(index, streams.stored, [self.model.with_rounded_inputs]), expected)

        self.findings.near(distances(found, expected), graphs.parts[place], noise)

    def _again(self, index: int, states: PairStates, changes: Sequence[Change]) -> list[Floats]:
        """What leaves the block ``index``, of the case, with each of ``changes``."""
        with self.model.block(index) as module:
            left = [self.model.through(module, index, _first(states), change) for change in changes]
        return [one.hidden[0].to(torch.float32).numpy() for one in left]

    def _cached_codes(self, index: int, plain: Expected, coded: PairStates) -> None:
        """What codes in both caches cost a block that rounds nothing else; ``plain`` is without them,
        ``coded`` what torch makes of it with them.
        """
        block = self.blocks[index]
        known = self.crossings.coded(block, coded.read[0])
        with self.decoder.exact_but_for_caches(self.decoder.place(block.prefix)) as runner:
            (found,) = runner.run(plain.ids, plain.inputs, 0, None, {**plain.beside, **known})
        result = compare_caches(found, coded.hidden[0].numpy(), plain.outputs[0], block.prefix)
        if not self._coded or _share(result) >= _share(self._coded):
            self._coded = result

    def _crossed(self, streams: PairStreams) -> PairStreams:
        """Where the decoder begins; the norm behind the encoder is a part of its graph."""
        plain = self.model.crossed(streams.plain)
        if (norm := self.anatomy.encoder_norm) is not None:
            expected = self.case.of_read(streams.plain.hidden[0], plain.read[0])
            graph = self.encoder.shipped(self.encoder.place(norm.name))
            self._equal(FLOAT, differences(graph, expected, self.case.read_cases))
        return PairStreams(plain, self.model.crossed(streams.stored) if self.rounds else plain)

    def _head(self, streams: PairStreams) -> None:
        """The logits of the first row: a row of a large vocabulary is large, and rows are alike to a head."""
        entered = streams.plain.hidden[0][:1], streams.stored.hidden[0][:1]
        norm, ids = self.anatomy.final_norm, self.case.decoder_ids[:1]
        normed = self.model.normed(norm, entered[0]), self.model.normed(norm, entered[1])
        HeadProof(self.model, self.decoder, ids, self._equal).run(entered, normed, rounds=self.rounds)


def _first(states: PairStates) -> PairStates:
    """Of the first batch alone."""
    return PairStates(states.hidden[:1], states.waiting[:1], states.read[:1], states.entries[:1])


def _share(found: dict[str, Any]) -> float:
    return float(found["mean_abs_difference"] / found["bound"])
