"""``Products``: seconds of each product of a model, looked up in a device's kernel table.

Decoding a token is a product with one row, the first token one with the prompt's rows, a batch of sentences
one with all of theirs. Of an encoder–decoder the prompt is what its encoder reads, a text or a sound, once,
and with it the keys and values that the decoder makes of that; the decoder has one row, for the first token
too.

What is measured of a bundle, and predicted before: tokens of a prompt or a sentence, if a model reads so
many, new ones after a prompt, if it writes so many, and sentences of a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import fsum

from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import Linear
from ...compress.numbers.scheme import Scheme
from ...compress.numbers.table_scheme import rows_of
from ...compress.sample_length import filled_length
from ...devices.kernel_table.operation import float_product, integer_product, quantized_product
from ...devices.predict.caches import Place
from ...devices.predict.subject import PredictedWork
from ...devices.predict.table_cost import NotMeasured, TableCost
from ...runtime.bundle.bundle import Bundle
from ..candidates import Unit
from ..quantities import ENCODER_DECODER, FIRST_TOKEN, SENTENCES, Quantity

Schemes = Mapping[str, Scheme | None]  # by the names of modules
PROMPT, NEW_TOKENS, BATCH = 128, 128, 32


@dataclass(frozen=True)
class Products:
    """Of the model ``anatomy`` on the device of ``cost``, for what is ``timed``; of a batch those of one
    sentence. Linears with the same inputs are one product, a head is computed for one row.
    """

    anatomy: Anatomy
    cost: TableCost
    timed: Quantity

    def of_unit(self, unit: Unit, place: Place) -> list[float]:
        """Of each option, with weights at ``place``."""
        if unit.is_table:
            return [self._head(unit.modules[0], option.scheme, place) for option in unit.options]
        rows, linears = self._rows(unit.modules), [self._linears[name] for name in unit.modules]
        whole = linears[0].in_features, sum(linear.out_features for linear in linears)
        return [self._product(option.scheme, rows, option.shape or whole, place) for option in unit.options]

    def of_model(self, anatomy: Anatomy, schemes: Schemes, place: Place) -> float:
        """Of all of them, of the model or what a cut leaves of it."""
        found = []
        for block in anatomy.blocks:
            for group in block.inputs():
                shape = group[0].in_features, sum(linear.out_features for linear in group)
                rows = self._rows([linear.name for linear in group])
                found.append(self._product(schemes[group[0].name], rows, shape, place))
        for name in dict.fromkeys((anatomy.embedding, anatomy.head)):
            if name is not None and name in schemes:
                found.append(self._head(name, schemes[name], place))
        return fsum(found)

    @cached_property
    def _linears(self) -> dict[str, Linear]:
        return {linear.name: linear for linear in self.anatomy.linears()}

    @cached_property
    def _read_once(self) -> frozenset[str]:
        """The linears of an encoder–decoder that have the rows of what is read, and of no token that is
        written.
        """
        blocks = self.anatomy.blocks
        found = {one.name for block in blocks if block.cross is None for one in block.linears()}
        crosses = (block.cross for block in blocks if block.cross is not None)
        return frozenset(found.union(*({cross.k.name, cross.v.name} for cross in crosses)))

    def _rows(self, modules: Sequence[str]) -> int:
        """Of the product that the linears ``modules`` are."""
        anatomy = self.anatomy
        if self.timed is SENTENCES:
            return BATCH * prompt_tokens(anatomy.max_positions, filled=filled_length(anatomy) is not None)
        if anatomy.kind != ENCODER_DECODER:
            return prompt_tokens(anatomy.max_positions // 2) if self.timed is FIRST_TOKEN else 1
        if self._read_once.isdisjoint(modules):
            return 1
        if self.timed is not FIRST_TOKEN:
            return 0
        return prompt_tokens(anatomy.max_positions) if anatomy.hearing is None else anatomy.hearing.tokens

    def _head(self, module: str, scheme: Scheme | None, place: Place) -> float:
        anatomy = self.anatomy
        if anatomy.head is None or not (anatomy.tied or module == anatomy.head):
            return 0.0
        rows, width = anatomy.vocab_size, anatomy.hidden_size
        if scheme is None:
            return self._product(None, 1, (width, rows), place)
        parts = rows_of(scheme, rows)
        return fsum(self._product(one, 1, (width, part.stop - part.start), place) for part, one in parts)

    def _product(self, scheme: Scheme | None, rows: int, shape: tuple[int, int], place: Place) -> float:
        inputs, outputs = shape
        if not rows or not inputs or not outputs:  # or the block goes
            return 0.0
        sentences = BATCH if self.timed is SENTENCES else 1
        return self._seconds(scheme, rows, inputs, outputs, place) / sentences

    def _seconds(self, scheme: Scheme | None, rows: int, inputs: int, outputs: int, place: Place) -> float:
        if scheme is not None and scheme.activations is not None:
            return self.cost.seconds(integer_product(rows, inputs, outputs), place)
        if scheme is not None:
            group = scheme.group_size or inputs
            work = quantized_product(rows, inputs, outputs, scheme.bits, group=group)
            return self.cost.seconds(work, place)
        try:
            return self.cost.seconds(float_product(rows, inputs, outputs), place)
        except NotMeasured:  # a head in float32, which no one chooses for its speed: its bytes, from memory
            return 4 * inputs * outputs / self.cost.far


def prompt_tokens(most: int, *, filled: bool = False) -> int:
    """Tokens of what is read by a model that reads at most so many; or always, texts being ``filled`` up."""
    return most if filled else min(PROMPT, most)


def timed_lengths(bundle: Bundle) -> tuple[int, int]:
    """Tokens that are read, and new ones that are written, where ``bundle`` is timed: a decoder has one
    context for both.
    """
    if bundle.kind == "encoder":
        return prompt_tokens(bundle.encoder.max_length, filled=bundle.encoder.filled), NEW_TOKENS
    if bundle.kind == "decoder":
        half = bundle.decoder.context_length // 2
        return prompt_tokens(half), min(NEW_TOKENS, half)
    both = bundle.encoder_decoder
    return prompt_tokens(both.max_length), min(NEW_TOKENS, both.context_length - len(both.prompt))


def timed_work(anatomy: Anatomy) -> PredictedWork:
    """The same of a model without a bundle."""
    decoder = anatomy.kind == "decoder"
    most = anatomy.max_positions // 2 if decoder else anatomy.max_positions
    read = prompt_tokens(most, filled=not decoder and filled_length(anatomy) is not None)
    return PredictedWork(read, min(NEW_TOKENS, most), BATCH)
