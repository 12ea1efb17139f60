"""What embedding and head cost the model's outputs in each scheme: the model is run with each of them, since
second order does not reach so far.

They are rounded as the recipe will (:mod:`edgepress.compress.solve.table_solving`). Of a table that is both,
the rows of frequent tokens are rounded alone, too: what a table in two parts
(:mod:`edgepress.compress.numbers.table_scheme`) loses is what those lose, and what the whole loses more in
the scheme of the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..compress.model.skeleton import Skeleton
from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import BITS, Scheme
from ..compress.numbers.table_scheme import TableScheme, kept_on_grid
from ..compress.pipeline.block_inputs import Stream
from ..compress.pipeline.damage_probe import decoder_divergences, distance, finite
from ..compress.pipeline.journal import read_sealed, write_sealed
from ..compress.pipeline.last_states import encode, last_states
from ..compress.pipeline.stage import Stage
from ..compress.solve.table_solving import gains, round_table, table_hessians
from ..compress.text.calibration import Calibration
from ..compress.text.token_batch import TokenBatch


def in_groups(sizes: Sequence[int]) -> tuple[Scheme, ...]:
    """Integers in groups of those ``sizes``; of 5 and 6 bits not in the smallest, where one more bit is the
    better use of as many bytes.
    """
    return tuple(Scheme.parse(f"W{bits}A16-g{size}") for bits in BITS for size in sizes[bits in (5, 6) :])


TABLE_SCHEMES = in_groups((16, 32, 64))
# Of tables in two parts: so many tokens come first in the order in which a tokenizer found them. They are
# three quarters of what SmolLM2 reads of Wikipedia.
RARE_FROM = 4096
TABLE_TOKENS = 2048
# What an encoder reads, at most, for a token that is written of it: of 30 seconds of sound 1,500, and some 30
# are written. What is rounded and measured in the decoder needs those.
MOST_READ = 3
TEXTS = "apart"  # which are rounded by, and which measured on
# What is rounded of a table: all rows, or those of frequent tokens alone. By that, by module and by scheme:
_WHOLE, _FREQUENT = "embedding", "frequent rows"
_Measured = dict[str, dict[str, dict[str, float]]]


def table_schemes(source: WeightSource) -> list[Scheme]:
    """Those that embedding and head may get."""
    return [one for one in TABLE_SCHEMES if source.anatomy.hidden_size % (one.group_size or 1) == 0]


def tables_in_parts(source: WeightSource) -> list[TableScheme]:
    """Those of tables whose rows of rare tokens have other bits or groups than those of frequent ones; none
    where no pass rounds them, where few tokens are rare, or where a head of its own may stay in float or 8
    bits, beside which the pass rounds neither.
    """
    anatomy = source.anatomy
    if not gains(anatomy) or not anatomy.tied or anatomy.vocab_size < 2 * RARE_FROM:
        return []
    schemes = [scheme for scheme in table_schemes(source) if kept_on_grid(scheme)]
    return [
        TableScheme.of(frequent, rare, RARE_FROM)
        for frequent in schemes
        for rare in schemes
        if frequent != rare
        and rare.bits <= frequent.bits
        and (rare.group_size or 0) % (frequent.group_size or 1) == 0
    ]


def table_losses(stage: Stage, calibration: Calibration) -> dict[str, dict[str, float]]:
    """Nats of KL a token of a decoder, or a squared relative distance of an encoder, by the name of embedding
    and head, and by scheme; a tied head is the embedding.
    """
    source, anatomy = stage.source, stage.source.anatomy
    rows = _rows(calibration)
    solves = gains(anatomy)
    measured, others = calibration.parted(rows) if solves else (calibration.spread(rows), calibration)
    batches = measured.batches
    as_is = Skeleton(source, stage.device)
    encoded = _encoded(stage, as_is, batches)
    states = _states(stage, as_is, batches, "measuring the original", encoded)
    own_head = anatomy.kind != "encoder" and anatomy.head is not None and not anatomy.tied
    names = [anatomy.embedding, *([anatomy.head] if own_head and anatomy.head is not None else [])]

    def measured_in(scheme: Scheme, other: WeightSource, what: str, *, rounded: bool) -> None:
        changed = Skeleton(other, stage.device)
        title = f"{what} in {scheme.name}"
        seen = _states(stage, changed, batches, title, encoded, rounded=rounded)
        found[what][anatomy.embedding][scheme.name] = _loss(
            as_is, changed if anatomy.tied else as_is, states, seen, rounded=rounded
        )
        for name in names[1:]:
            found[what][name][scheme.name] = _loss(as_is, changed, states, states, rounded=rounded)
        write_sealed(kept, found)

    # A killed run goes on after the last scheme.
    kept = stage.directory / f"table-losses-{calibration.sha256[:16]}.json"
    empty: _Measured = {what: {name: {} for name in names} for what in (_WHOLE, _FREQUENT)}
    found: _Measured = read_sealed(kept) or empty
    # In a directory of its own: that of the linears' losses stays for a run that goes on.
    apart = replace(stage, directory=stage.directory / "tables", calibration=others)
    hessians = table_hessians(apart, "fit") if solves else {}
    parts = tables_in_parts(source)
    in_parts = {part.frequent for part in parts} | {part.rare for part in parts}
    for scheme in table_schemes(source):
        wanted = (_WHOLE, _FREQUENT) if scheme in in_parts else (_WHOLE,)
        if all(scheme.name in found[what][name] for what in wanted for name in names):
            continue
        other = _with_tables(source, scheme, hessians)
        measured_in(scheme, other, _WHOLE, rounded=True)
        if scheme in in_parts:
            measured_in(scheme, _frequent_alone(source, other), _FREQUENT, rounded=False)
    return {name: _of_parts(found[_WHOLE][name], found[_FREQUENT][name], parts) for name in names}


def _of_parts(
    whole: dict[str, float], frequent: Mapping[str, float], parts: Sequence[TableScheme]
) -> dict[str, float]:
    """What tables lose by scheme, those in two parts too: what the frequent rows lose alone, and what the
    whole loses more than they do in the scheme of the others.
    """
    return whole | {
        part.name: frequent[part.frequent.name] + max(0.0, whole[part.rare.name] - frequent[part.rare.name])
        for part in parts
    }


def _rows(calibration: Calibration) -> int:
    """So many samples that :data:`TABLE_TOKENS` are written of them, unless too much is read for that."""
    written = TABLE_TOKENS * calibration.samples // calibration.written_tokens
    return max(1, min(written, MOST_READ * TABLE_TOKENS // calibration.length))


def _with_tables(source: WeightSource, scheme: Scheme, hessians: Mapping[str, Tensor]) -> WeightSource:
    """The model with its embedding and head stored so, under their ``hessians`` where that gains."""
    other = WeightSource.open(source.reader.path)
    other.embedding_scheme = scheme
    for name, hessian in hessians.items() if kept_on_grid(scheme) else ():
        weight = f"{name}.weight"
        other.replaced[weight] = round_table(source.stored(weight), hessian, scheme).table
    return other


def _frequent_alone(source: WeightSource, other: WeightSource) -> WeightSource:
    """``source`` with the rows of frequent tokens of the tables that ``other`` replaces."""
    found = WeightSource.open(source.reader.path)
    for name, table in other.replaced.items():
        found.replaced[name] = torch.cat([table[:RARE_FROM], source.stored(name)[RARE_FROM:]])
    return found


def _encoded(stage: Stage, as_is: Skeleton, batches: Sequence[TokenBatch]) -> Stream | None:
    """What an encoder makes of ``batches`` that looks up nothing in the embedding, whatever that is stored
    in: one that hears.
    """
    if as_is.anatomy.hearing is None:
        return None
    return encode(as_is, batches, stage.directory / "encoded", stage.progress, "encoding")


def _states(
    stage: Stage,
    skeleton: Skeleton,
    batches: Sequence[TokenBatch],
    title: str,
    encoded: Stream | None,
    *,
    rounded: bool = False,
) -> Tensor:
    folder = stage.directory / "activations"
    return last_states(skeleton, batches, folder, stage.progress, title, rounded=rounded, encoded=encoded)


def _loss(as_is: Skeleton, other: Skeleton, states: Tensor, others: Tensor, *, rounded: bool) -> float:
    """Between rows ``[tokens, hidden]`` behind the last block, each with its head; the ``other`` one is
    ``rounded`` as exports do.
    """
    hidden = finite([states, others])
    result: Mapping[str, Any]
    if as_is.anatomy.kind == "encoder":
        # Of unit vectors the squared distance is twice what is missing to a cosine of 1.
        return 2 * float(distance(*hidden)["distance"])
    with as_is.head() as head, other.head(rounded=rounded and other is not as_is) as its:
        result = decoder_divergences(hidden, [head, its])[0]
    return max(0.0, float(result["kl"]))
