"""What a choice takes on a device: the seconds of each product, looked up in the device's kernel table.

Decoding a token is a product with one row, the first token one with the prompt's rows, a batch of sentences
one with all of theirs. What else a pass takes no choice changes: it is what the first trial measures beyond
its products.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import Scheme
from ..devices.kernel_table.operation import float_product, integer_product, quantized_product
from ..devices.predict.caches import Place
from ..devices.predict.predict import table_of
from ..devices.predict.table_cost import NotMeasured, TableCost
from ..runtime.session.threads import thread_budget
from .budgets import Budget
from .candidates import Space, Unit
from .quantities import DECODE, ENERGY, FIRST_TOKEN, SENTENCES, TIMED
from .solve import Table

# What is measured: tokens of a prompt or a sentence, new ones after a prompt, and sentences of a batch.
PROMPT, NEW_TOKENS, BATCH = 128, 128, 32
_ROWS = {DECODE: 1, FIRST_TOKEN: PROMPT, SENTENCES: BATCH * PROMPT}


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
    rate = DECODE if source.anatomy.kind == "decoder" else SENTENCES
    for budget in budgets:
        if budget.quantity in TIMED:
            timed = rate if budget.quantity is ENERGY else budget.quantity
            rows, cost = _ROWS[timed], costs[str(budget.device)]
            share = BATCH if timed is SENTENCES else 1
            place = cost.place(space.shipped + sum(min(row) for row in space.sizes))
            found[budget.key] = [
                [seconds / share for seconds in _seconds(source, unit, rows, cost, place)]
                for unit in space.units
            ]
    return found


def _seconds(source: WeightSource, unit: Unit, rows: int, cost: TableCost, place: Place) -> list[float]:
    """Of each option: linears with the same inputs are one product, a head is computed for one row."""
    anatomy = source.anatomy
    if unit.is_table and (anatomy.head is None or not (anatomy.tied or unit.modules == (anatomy.head,))):
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
