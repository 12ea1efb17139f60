"""What a choice takes on a device: the seconds of each product, looked up in the device's kernel table.

Decoding a token is a product with one row, the first token one with the prompt's rows, a batch of sentences
one with all of theirs. Of an encoder–decoder the prompt is what its encoder reads, a text or a sound, once,
and with it the keys and values that the decoder makes of that; the decoder has one row, for the first token
too. What else a pass takes is predicted of the smallest bundle, until the first trial measures it, as if no
choice changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from math import fsum
from typing import TypeVar

from ..benchmarks.speed.planned_graph import PlannedModel
from ..benchmarks.speed.planned_subject import planned_subject
from ..compress.model.anatomy import Anatomy
from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import Scheme
from ..compress.sample_length import filled_length
from ..devices.kernel_table.operation import float_product, integer_product, quantized_product
from ..devices.predict.caches import Place
from ..devices.predict.from_table import TablePrediction
from ..devices.predict.predict import table_of
from ..devices.predict.table_cost import NotMeasured, TableCost
from ..devices.predict.workload import RATES, PredictedWork
from ..errors import CheckpointError, InputError
from ..runtime.bundle.bundle import Bundle
from ..runtime.session.threads import thread_budget
from .budgets import Budget
from .candidates import Space, Unit
from .quantities import DECODE, DISK, ENCODER_DECODER, ENERGY, FIRST_TOKEN, SENTENCES, TIMED, Quantity
from .solve import Table

T = TypeVar("T")

# What is measured: tokens of a prompt or a sentence, if a model reads so many, new ones after a prompt, if it
# writes so many, and sentences of a batch.
PROMPT, NEW_TOKENS, BATCH = 128, 128, 32
# From each unit's smallest option to its largest: choices of which the bytes and the seconds are looked up.
_EVEN_CHOICES = (0.0, 0.25, 0.5, 0.75, 1.0)


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
    space: Space,
    source: WeightSource,
    budgets: Sequence[Budget],
    costs: dict[str, TableCost],
    rests: Mapping[str, float] | None = None,
) -> dict[str, Table]:
    """Seconds by unit and option, by the key of each budget of speed or energy; of a batch those of one
    sentence. Weights lie in the caches as those of the largest choice that the budgets leave room for, beside
    the ``rests`` of :func:`rests_of`.

    Raises:
        NotMeasured: an operator that a device's table lacks.
    """
    found: dict[str, Table] = {}
    most = min((one.bound for one in budgets if one.quantity is DISK), default=float("inf"))
    for budget in budgets:
        if budget.quantity in TIMED:
            table = _table_of(space, source, budget, costs[str(budget.device)])
            size = _even_size(space, 0.0)
            if budget.quantity is not ENERGY:  # which nothing says in seconds before a trial
                seconds = 1 / budget.bound if budget.quantity.side == "min" else budget.bound
                size = min(_size_within(space, table, seconds - (rests or {}).get(budget.key, 0.0)), most)
            found[budget.key] = table(size)
    return found


def rests_of(
    space: Space, source: WeightSource, budgets: Sequence[Budget], costs: dict[str, TableCost]
) -> dict[str, float]:
    """Seconds of a pass beside those of its units, by the key of each budget of speed: what is predicted of a
    bundle of the smallest options without them. Of what nothing is predicted, and of energy, there are none.

    Raises:
        NotMeasured: an operator of the units that a device's table lacks.
    """
    found: dict[str, float] = {}
    size = _even_size(space, 0.0)
    for budget in budgets:
        if budget.quantity in TIMED and budget.quantity is not ENERGY:
            cost = costs[str(budget.device)]
            units = fsum(_of_choice(space, 0.0, _table_of(space, source, budget, cost)(size)))
            with suppress(CheckpointError, NotMeasured, InputError):
                whole = _predicted_seconds(space, source, budget, cost)
                found[budget.key] = max(whole - units, 0.0)
    return found


def _predicted_seconds(space: Space, source: WeightSource, budget: Budget, cost: TableCost) -> float:
    """Of the quantity of ``budget``, with the smallest option of each unit; of a batch those of a sentence.

    Raises:
        CheckpointError, NotMeasured: nothing is predicted of such a model, or an operator was not measured.
        InputError: the model has no room for what is timed.
    """
    anatomy = source.anatomy
    chosen = {
        module: option.scheme
        for unit, option in zip(
            space.units, _of_choice(space, 0.0, [unit.options for unit in space.units]), strict=True
        )
        for module in unit.modules
    }
    embedding = chosen.pop(anatomy.embedding, None)
    head = embedding if anatomy.tied or anatomy.head is None else chosen.pop(anatomy.head, None)
    schemes = {name: scheme for name, scheme in chosen.items() if scheme is not None}
    model = PlannedModel(anatomy, schemes, embedding, head)
    size = int(_even_size(space, 0.0))
    subject = planned_subject(model, "the smallest choice", source.reader.path, size)
    decoder = anatomy.kind == "decoder"
    most = anatomy.max_positions // 2 if decoder else anatomy.max_positions
    read = prompt_tokens(most, filled=not decoder and filled_length(anatomy) is not None)
    work = PredictedWork(read, min(NEW_TOKENS, most), BATCH)
    work.check(subject)
    prediction = TablePrediction(subject, cost.table, cost.threads).predict(work, "")
    values = {one.name: one.value for one in prediction.quantities}
    if budget.quantity is FIRST_TOKEN:
        return float(values["ttft_ms"] or 0.0) / 1e3
    return 1 / float(
        values["decode_tps" if budget.quantity is DECODE else RATES[subject.unit]] or float("inf")
    )


def _of_choice(space: Space, share: float, table: Sequence[Sequence[T]]) -> list[T]:
    """Of each row of ``table``, which has a value for each option of a unit, that of the option so far, as a
    ``share``, between the smallest and the largest; those that cut nothing.
    """
    found = []
    for unit, row in zip(space.units, table, strict=True):
        whole = [index for index in range(len(row)) if unit.options[index].kept is None]
        order = sorted(whole, key=lambda index: unit.options[index].size)
        found.append(row[order[round(share * (len(order) - 1))]])
    return found


def _even_size(space: Space, share: float) -> float:
    """Bytes of the bundle that :func:`_of_choice` makes."""
    return space.shipped + fsum(_of_choice(space, share, space.sizes))


def _size_within(space: Space, table: Callable[[float], Table], seconds: float) -> float:
    """Bytes of the largest choice whose units take so long at most, by those of :data:`_EVEN_CHOICES`."""
    sizes = [_even_size(space, share) for share in _EVEN_CHOICES]
    taken = [
        fsum(_of_choice(space, share, table(size))) for share, size in zip(_EVEN_CHOICES, sizes, strict=True)
    ]
    for (small, fast), (large, slow) in pairwise(zip(sizes, taken, strict=True)):
        if slow > seconds:
            return (
                small + max(seconds - fast, 0.0) / (slow - fast) * (large - small) if slow > fast else small
            )
    return sizes[-1]


def _table_of(
    space: Space, source: WeightSource, budget: Budget, cost: TableCost
) -> Callable[[float], Table]:
    """Seconds by unit and option in a bundle of so many bytes."""
    rate = SENTENCES if source.anatomy.kind == "encoder" else DECODE
    timed = rate if budget.quantity is ENERGY else budget.quantity
    share, once = BATCH if timed is SENTENCES else 1, _read_once(source.anatomy)
    rows = [_rows(source.anatomy, unit, timed, once) for unit in space.units]

    def table(size: float) -> Table:
        place = cost.place(size)
        return [
            [seconds / share for seconds in _seconds(source, unit, each, cost, place)]
            for unit, each in zip(space.units, rows, strict=True)
        ]

    return table


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
    return [
        _product(cost, option.scheme, rows, *option.shape, place)
        if option.shape is not None
        else _product(cost, option.scheme, *shape, place)
        for option in unit.options
    ]


def _product(
    cost: TableCost, scheme: Scheme | None, rows: int, inputs: int, outputs: int, place: Place
) -> float:
    if not inputs or not outputs:  # the block goes
        return 0.0
    if scheme is not None and scheme.activations is not None:
        return cost.seconds(integer_product(rows, inputs, outputs), place)
    if scheme is not None:
        work = quantized_product(rows, inputs, outputs, scheme.bits, group=scheme.group_size or inputs)
        return cost.seconds(work, place)
    try:
        return cost.seconds(float_product(rows, inputs, outputs), place)
    except NotMeasured:  # a head in float32, which no one chooses for its speed: its bytes, from memory
        return 4 * inputs * outputs / cost.far
