"""What a choice takes on a device: the seconds of each product, looked up in the device's kernel table.

Decoding a token is a product with one row, the first token one with the prompt's rows, a batch of sentences
one with all of theirs. Of an encoder–decoder the prompt is what its encoder reads, a text or a sound, once,
and with it the keys and values that the decoder makes of that; the decoder has one row, for the first token
too. What else a pass takes is what the first trial measures beyond its products, as if no choice changed it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..compress.model.anatomy import Anatomy
from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import Scheme
from ..compress.sample_length import filled_length
from ..devices.kernel_table.operation import float_product, integer_product, quantized_product
from ..devices.predict.caches import Place
from ..devices.predict.predict import table_of
from ..devices.predict.table_cost import NotMeasured, TableCost
from ..runtime.bundle.bundle import Bundle
from ..runtime.session.threads import thread_budget
from .budgets import Budget
from .candidates import Space, Unit
from .quantities import DECODE, ENCODER_DECODER, ENERGY, FIRST_TOKEN, SENTENCES, TIMED, Quantity
from .solve import Table

# What is measured: tokens of a prompt or a sentence, if a model reads so many, new ones after a prompt, if it
# writes so many, and sentences of a batch.
PROMPT, NEW_TOKENS, BATCH = 128, 128, 32


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


def costs_of(budgets: Sequence[Budget], threads: int | None) -> dict[str, TableCost]:
    """The costs of each device that has a budget of speed, by its name: with ``threads``, or all that there
    are.

    Raises:
        InputError: a device without a kernel table, or with one of another state of it; says how to make it.
        NotMeasured: a table without so many threads.
    """
    found = {}
    for name in dict.fromkeys(str(one.device) for one in budgets if one.quantity in TIMED):
        table = table_of(name)
        count = threads or (thread_budget() if name == "here" else max(table.threads, default=1))
        found[name] = TableCost(table, count)
    return found


def times_of(
    space: Space, source: WeightSource, budgets: Sequence[Budget], costs: dict[str, TableCost]
) -> dict[str, Table]:
    """Seconds by unit and option, by the key of each budget of speed or energy; of a batch those of one
    sentence.

    Raises:
        NotMeasured: an operator that a device's table lacks.
    """
    found: dict[str, Table] = {}
    rate = SENTENCES if source.anatomy.kind == "encoder" else DECODE
    once = _read_once(source.anatomy)
    for budget in budgets:
        if budget.quantity in TIMED:
            timed = rate if budget.quantity is ENERGY else budget.quantity
            cost, share = costs[str(budget.device)], BATCH if timed is SENTENCES else 1
            place = cost.place(space.shipped + sum(min(row) for row in space.sizes))
            rows = [_rows(source.anatomy, unit, timed, once) for unit in space.units]
            found[budget.key] = [
                [seconds / share for seconds in _seconds(source, unit, each, cost, place)]
                for unit, each in zip(space.units, rows, strict=True)
            ]
    return found


def _read_once(anatomy: Anatomy) -> frozenset[str]:
    """The linears of an encoder–decoder that have the rows of what is read, and of no token that is
    written.
    """
    found = {one.name for block in anatomy.blocks if block.cross is None for one in block.linears()}
    crosses = (block.cross for block in anatomy.blocks if block.cross is not None)
    return frozenset(found.union(*({cross.k.name, cross.v.name} for cross in crosses)))


def _rows(anatomy: Anatomy, unit: Unit, timed: Quantity, once: frozenset[str]) -> int:
    """Of the product that the linears of ``unit`` are."""
    if timed is SENTENCES:
        return BATCH * prompt_tokens(anatomy.max_positions, filled=filled_length(anatomy) is not None)
    if anatomy.kind != ENCODER_DECODER:
        return prompt_tokens(anatomy.max_positions // 2) if timed is FIRST_TOKEN else 1
    if once.isdisjoint(unit.modules):
        return 1
    if timed is not FIRST_TOKEN:
        return 0
    return prompt_tokens(anatomy.max_positions) if anatomy.hearing is None else anatomy.hearing.tokens


def _seconds(source: WeightSource, unit: Unit, rows: int, cost: TableCost, place: Place) -> list[float]:
    """Of each option: linears with the same inputs are one product, a head is computed for one row."""
    anatomy = source.anatomy
    no_head = anatomy.head is None or not (anatomy.tied or unit.modules == (anatomy.head,))
    if not rows or (unit.is_table and no_head):
        return [0.0] * len(unit.options)
    if unit.is_table:
        shape = 1, anatomy.hidden_size, anatomy.vocab_size
    else:
        shapes = [source.shapes[f"{name}.weight"] for name in unit.modules]
        shape = rows, shapes[0][1], sum(outputs for outputs, _ in shapes)
    return [_product(cost, option.scheme, *shape, place) for option in unit.options]


def _product(
    cost: TableCost, scheme: Scheme | None, rows: int, inputs: int, outputs: int, place: Place
) -> float:
    if scheme is not None and scheme.activations is not None:
        return cost.seconds(integer_product(rows, inputs, outputs), place)
    if scheme is not None:
        work = quantized_product(rows, inputs, outputs, scheme.bits, group=scheme.group_size or inputs)
        return cost.seconds(work, place)
    try:
        return cost.seconds(float_product(rows, inputs, outputs), place)
    except NotMeasured:  # a head in float32, which no one chooses for its speed: its bytes, from memory
        return 4 * inputs * outputs / cost.far
