"""What every candidate costs the model's outputs: one pass of statistics, kept in the user's cache, so that
other budgets on the same model and text have it at once.

Linears are measured by gradients, rounded by GPTQ in all schemes in one backward sweep
(:mod:`edgepress.compress.solve.gptq_losses`); embedding and head by running the model with each of their
schemes (:mod:`.table_losses`). What is rounded by a text is measured on another one: on its
own it seems to lose less, the shorter it is the more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from .. import __version__
from ..compress.model.anatomy import Anatomy
from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import Scheme
from ..compress.numbers.table_scheme import MOST_BITS
from ..compress.pipeline.block_shards import Masks
from ..compress.pipeline.journal import read_sealed, write_sealed
from ..compress.pipeline.stage import Stage
from ..compress.solve.gptq_losses import LOOKED_TOKENS, folded, gptq_costs_beside
from ..compress.solve.table_solving import TOKENS
from ..compress.text.calibration import Calibration
from ..compress.text.micro_batches import MEASURED_TOKENS
from ..files.disk import make_folder
from ..files.storage import cache_directory, sha256_json
from ..terminal.progress import Progress
from .cuts.cut_losses import CUT_SIZES, cut_losses, cut_measure, drop_losses
from .cuts.possible import NONE, cuts_of
from .table_losses import MOST_READ, RARE_FROM, TABLE_SCHEMES, TABLE_TOKENS, TEXTS, in_groups, table_losses

GROUPS = (32, 64, 128)
LINEAR_SCHEMES = in_groups(GROUPS)
# Of encoders, whose rows are many: integer products, which round their inputs too.
INTEGER = Scheme.parse("W8A8")
# How losses are measured: of linears behind awq, which methods begin with, of tables with refitted scales.
_LINEARS, _TABLES = "folded", "in parts"


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
    measured = [MEASURED_TOKENS, LOOKED_TOKENS, TABLE_TOKENS, TOKENS, MOST_READ]
    sizes = [*measured, MOST_BITS, RARE_FROM, *CUT_SIZES]
    how = [TEXTS, _LINEARS, _TABLES]
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
    """
    file = losses_file(fingerprint, source.anatomy, calibration, cuts=cuts)
    if (known := known_losses(file)) is not None:
        return known
    stage = Stage(source, source, directory, calibration, Masks(), device, progress)
    possible, linears = cuts_of(source) if cuts else NONE, list(source.anatomy.linears())
    schemes, also = linear_schemes(source.anatomy), cut_measure(possible)
    costs, measured = gptq_costs_beside(stage, "fit", schemes, linears, also, folded, most_read=MOST_READ)
    tables = {} if source.anatomy.patches is not None else table_losses(stage, calibration)
    found = Losses(costs, tables, cut_losses(possible, measured) | drop_losses(possible, stage))
    make_folder(file.parent)
    write_sealed(file, asdict(found))
    return found
