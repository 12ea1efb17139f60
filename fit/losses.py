"""What every candidate costs the model's outputs: one pass of statistics, kept in the user's cache, so that
other budgets on the same model and text have it at once.

Linears are measured by gradients, rounded by GPTQ in all schemes in one backward sweep
(:mod:`edgepress.compress.solve.gptq_losses`); embedding and head by running the model with each of their
schemes (:mod:`.table_losses`). What is rounded by a text is measured on another one: on its
own it seems to lose less, the shorter it is the more.

The packaged recipes among the first trials of a search, word for word: what it finds should be no worse.

Those whose passes change nothing but how weights are stored, in schemes that are candidates: their bytes and
damage are predicted as of any choice, of one option for each part.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..compress.model.anatomy import Anatomy
from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import Scheme
from ..compress.numbers.table_scheme import MOST_BITS
from ..compress.pipeline.block_shards import Masks
from ..compress.pipeline.chain import schemes_after
from ..compress.pipeline.journal import read_sealed, write_sealed
from ..compress.pipeline.stage import Stage
from ..compress.recipe import CalibrationSettings, Recipe, load_recipe
from ..compress.recipe_files import names, text_of
from ..compress.solve.gptq_losses import LOOKED_TOKENS, folded, gptq_costs_beside
from ..compress.solve.scheme_costs import divides
from ..compress.solve.table_solving import TOKENS
from ..compress.text.calibration import Calibration
from ..compress.text.micro_batches import MEASURED_TOKENS
from ..files.disk import make_folder
from ..files.storage import cache_directory, sha256_json
from ..files.yaml_safe import load_yaml
from ..terminal.progress import Progress
from .cuts.cut_losses import CUT_SIZES, cut_losses, cut_measure, drop_losses
from .cuts.possible import NONE, cuts_of
from .methods import Method
from .table_losses import (
    MOST_READ,
    RARE_FROM,
    TABLE_SCHEMES,
    TABLE_TOKENS,
    TEXTS,
    in_groups,
    table_losses,
    table_schemes,
)

GROUPS = (32, 64, 128)
LINEAR_SCHEMES = in_groups(GROUPS)
# Of encoders, whose rows are many: integer products, which round their inputs too.
INTEGER = Scheme.parse("W8A8")
# How losses are measured: of linears behind awq, which methods begin with, of tables with refitted scales.
_LINEARS, _TABLES = "folded", "in parts"
_PASSES = frozenset({"awq", "embedding", "gptq", "hqq", "kv_cache", "rtn", "tune"})
# Of equal schemes the first counts.
_BETTER = ("corrected", "gptq", "rtn")
Given = Mapping[str, Scheme | None]


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


def packaged_methods() -> tuple[Method, ...]:
    """A method for each recipe, those that round better first."""
    recipes = ((name, load_recipe(name)) for name in names())
    found = [_method(name, one) for name, one in recipes if all(step in _PASSES for step, _ in one.steps)]
    return tuple(sorted(found, key=lambda one: (_BETTER.index(one.rounding), not one.scaled)))


def _method(name: str, recipe: Recipe) -> Method:
    """What is done as :class:`.methods.Method` knows it, which identifies trials."""
    steps: dict[str, Any] = dict(recipe.steps)
    gptq = steps.get("gptq")
    rounding = "rtn" if gptq is None else "corrected" if gptq.correction else "gptq"
    epochs = round(steps["tune"].training.epochs) if "tune" in steps else 0
    cached = "kv_cache" in steps
    return Method(rounding, "awq" in steps, epochs=epochs, cached=cached, uniform=True, packaged=name)


def packaged_recipe(name: str, calibration: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe as it is in the package, on the text and the seed of ``calibration``, with as many samples
    as it says itself, unless there are fewer.
    """
    text, origin = text_of(name)
    found = {key: value for key, value in load_yaml(text, source=origin).items() if key != "about"}
    own = CalibrationSettings.model_validate(found.get("calibration", {}))
    sizes = {key: min(getattr(own, key), calibration[key]) for key in ("samples", "length")}
    return found | {"calibration": {**calibration, **sizes}}


def given_by(source: WeightSource, name: str) -> Given | None:
    """The scheme of each linear, the embedding and a head of its own; None where one is no candidate."""
    recipe, anatomy = load_recipe(name), source.anatomy
    linears = {one.name: one for one in anatomy.linears()}
    schemes = schemes_after(recipe.steps, source)
    candidates, tables = linear_schemes(anatomy), [*table_schemes(source), None]
    if len(schemes) < len(linears) or any(
        scheme not in candidates or not divides(scheme, linears[linear]) for linear, scheme in schemes.items()
    ):
        return None
    if anatomy.patches is not None:  # without tables
        return schemes
    if any(scheme not in tables for scheme in recipe.tables):
        return None
    own = {} if anatomy.head is None or anatomy.tied else {anatomy.head: recipe.tables[1]}
    return {**schemes, anatomy.embedding: recipe.tables[0], **own}
