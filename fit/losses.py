"""What every candidate costs the model's outputs: one pass of statistics, kept in the user's cache, so that
other budgets on the same model and text have it at once.

Linears are measured by gradients, rounded by GPTQ in all schemes in one backward sweep
(:mod:`edgepress.compress.solve.gptq_losses`); embedding and head, which second order does not reach, by
running the model with each of their schemes, rounded as the recipe will
(:mod:`edgepress.compress.solve.table_solving`). What is rounded by a text is measured on another one: on its
own it seems to lose less, the shorter it is the more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..compress.model.anatomy import Anatomy
from ..compress.model.skeleton import Skeleton
from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import BITS, Scheme
from ..compress.numbers.table_rounding import MOST_BITS, kept_on_grid
from ..compress.pipeline.block_inputs import Stream
from ..compress.pipeline.block_shards import Masks
from ..compress.pipeline.damage_probe import decoder_divergences, distance, finite
from ..compress.pipeline.last_states import encode, last_states
from ..compress.pipeline.sealed import read_sealed, write_sealed
from ..compress.pipeline.stage import Stage
from ..compress.solve.folded_losses import folded
from ..compress.solve.gptq_losses import LOOKED_TOKENS, gptq_costs_beside
from ..compress.solve.table_solving import TOKENS, gains, round_table, table_hessians
from ..compress.text.calibration import Calibration
from ..compress.text.measured_text import MEASURED_TOKENS
from ..compress.text.token_batch import TokenBatch
from ..disk import make_folder
from ..storage import cache_directory, sha256_json
from ..terminal import Progress
from .cuts.cut_losses import CUT_SIZES, cut_losses, cut_measure, drop_losses
from .cuts.possible import NONE, cuts_of

GROUPS = (32, 64, 128)


def _in_groups(sizes: Sequence[int]) -> tuple[Scheme, ...]:
    """Integers in groups of those ``sizes``; of 5 and 6 bits not in the smallest, where one more bit is the
    better use of as many bytes.
    """
    return tuple(Scheme.parse(f"W{bits}A16-g{size}") for bits in BITS for size in sizes[bits in (5, 6) :])


LINEAR_SCHEMES = _in_groups(GROUPS)
# Of encoders, whose rows are many: integer products, which round their inputs too.
INTEGER = Scheme.parse("W8A8")
TABLE_SCHEMES = _in_groups((16, 32, 64))
_TABLE_TOKENS = 2048
# What an encoder reads, at most, for a token that is written of it: of 30 seconds of sound 1,500, and some 30
# are written. What is rounded and measured in the decoder needs those.
_MOST_READ = 3
_TEXTS = "apart"  # which are rounded by, and which measured on
# How losses are measured: of linears behind awq, which methods begin with, of tables with refitted scales.
_LINEARS, _TABLES = "folded", "refitted"


@dataclass(frozen=True)
class Losses:
    """Nats of KL a token of a decoder, or a squared relative distance of an encoder, by the name of a linear,
    the embedding or the head, and by the name of a scheme; a model of images has no such tables. ``cuts``:
    by the name of a part of a block, and by how many heads or channels it keeps (:mod:`.cut_losses`).
    """

    linears: dict[str, dict[str, float]]
    tables: dict[str, dict[str, float]]
    cuts: dict[str, dict[str, float]] = field(default_factory=dict)


def linear_schemes(anatomy: Anatomy) -> tuple[Scheme, ...]:
    """Those that a linear may get."""
    return (*LINEAR_SCHEMES, INTEGER) if anatomy.kind == "encoder" else LINEAR_SCHEMES


def losses_file(fingerprint: str, anatomy: Anatomy, calibration: Calibration, *, cuts: bool = True) -> Path:
    """Where the losses of the model with this ``fingerprint`` are kept, once they are measured; those of
    ``cuts`` too, or of bits alone.
    """
    names = [[one.name for one in schemes] for schemes in (linear_schemes(anatomy), TABLE_SCHEMES)]
    sizes = [MEASURED_TOKENS, LOOKED_TOKENS, _TABLE_TOKENS, TOKENS, MOST_BITS, _MOST_READ, *CUT_SIZES]
    how = [_TEXTS, _LINEARS, _TABLES]
    key = sha256_json([__version__, fingerprint, calibration.sha256, names, sizes, how, cuts])
    return cache_directory() / "fit" / f"{key}.json"


def known_losses(file: Path) -> Losses | None:
    """Those that were measured before."""
    found = read_sealed(file)
    return None if found is None else Losses(**found)


def measure_losses(
    source: WeightSource,
    fingerprint: str,
    calibration: Calibration,
    directory: Path,
    device: torch.device,
    progress: Progress,
    *,
    cuts: bool = True,
) -> Losses:
    """Measure on ``calibration``, or read what was measured; of ``cuts`` too, unless the model is cut
    already. ``directory`` is for what a killed run left.

    Raises:
        CalibrationError: the model turns the text into NaN or infinity, or there is one sequence of it, which
            cannot be rounded by and measured on.
    """
    file = losses_file(fingerprint, source.anatomy, calibration, cuts=cuts)
    if (known := known_losses(file)) is not None:
        return known
    stage = Stage(source, source, directory, calibration, Masks(), device, progress)
    possible, linears = cuts_of(source) if cuts else NONE, list(source.anatomy.linears())
    schemes, also = linear_schemes(source.anatomy), cut_measure(possible)
    costs, measured = gptq_costs_beside(stage, "fit", schemes, linears, also, folded, most_read=_MOST_READ)
    tables = {} if source.anatomy.patches is not None else _table_losses(stage, calibration)
    found = Losses(costs, tables, cut_losses(possible, measured) | drop_losses(possible, stage))
    make_folder(file.parent)
    write_sealed(file, asdict(found))
    return found


def table_schemes(source: WeightSource) -> list[Scheme]:
    """Those that embedding and head may get."""
    return [one for one in TABLE_SCHEMES if source.anatomy.hidden_size % (one.group_size or 1) == 0]


def _table_losses(stage: Stage, calibration: Calibration) -> dict[str, dict[str, float]]:
    """By the name of embedding and head, and by scheme; a tied head is the embedding."""
    source, anatomy = stage.source, stage.source.anatomy
    rows = _rows(calibration)
    solves = gains(anatomy)
    measured, others = calibration.parted(rows) if solves else (calibration.spread(rows), calibration)
    batches = measured.batches
    schemes = table_schemes(source)
    as_is = Skeleton(source, stage.device)
    encoded = _encoded(stage, as_is, batches)
    states = _states(stage, as_is, batches, "measuring the original", encoded)
    own_head = anatomy.kind != "encoder" and anatomy.head is not None and not anatomy.tied
    names = [anatomy.embedding, *([anatomy.head] if own_head and anatomy.head is not None else [])]
    # A killed run goes on after the last scheme.
    kept = stage.directory / f"tables-{_TEXTS}-{calibration.sha256[:16]}.json"
    found: dict[str, dict[str, float]] = (read_sealed(kept) or {}).get("tables", {name: {} for name in names})
    # In a directory of its own: that of the linears' losses stays for a run that goes on.
    apart = replace(stage, directory=stage.directory / "tables", calibration=others)
    hessians = table_hessians(apart, "fit") if solves else {}
    for scheme in schemes:
        if all(scheme.name in found[name] for name in names):
            continue
        rounded = Skeleton(_with_tables(source, scheme, hessians), stage.device)
        changed = _states(stage, rounded, batches, f"embedding in {scheme.name}", encoded, rounded=True)
        found[anatomy.embedding][scheme.name] = _loss(
            as_is, rounded if anatomy.tied else as_is, states, changed
        )
        for name in names[1:]:
            found[name][scheme.name] = _loss(as_is, rounded, states, states)
        write_sealed(kept, {"tables": found})
    return found


def _rows(calibration: Calibration) -> int:
    """So many samples that :data:`_TABLE_TOKENS` are written of them, unless too much is read for that."""
    written = _TABLE_TOKENS * calibration.samples // calibration.written_tokens
    return max(1, min(written, _MOST_READ * _TABLE_TOKENS // calibration.length))


def _with_tables(source: WeightSource, scheme: Scheme, hessians: Mapping[str, Tensor]) -> WeightSource:
    """The model with its embedding and head stored so, under their ``hessians`` where that gains."""
    other = WeightSource.open(source.reader.path)
    other.embedding_scheme = scheme
    for name, hessian in hessians.items() if kept_on_grid(scheme) else ():
        weight = f"{name}.weight"
        other.replaced[weight] = round_table(source.stored(weight), hessian, scheme).table
    return other


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


def _loss(as_is: Skeleton, other: Skeleton, states: Tensor, others: Tensor) -> float:
    """Between rows ``[tokens, hidden]`` behind the last block, each with its head."""
    hidden = finite([states, others])
    result: Mapping[str, Any]
    if as_is.anatomy.kind == "encoder":
        # Of unit vectors the squared distance is twice what is missing to a cosine of 1.
        return 2 * float(distance(*hidden)["distance"])
    with as_is.head() as head, other.head(rounded=other is not as_is) as rounded:
        result = decoder_divergences(hidden, [head, rounded])[0]
    return max(0.0, float(result["kl"]))
