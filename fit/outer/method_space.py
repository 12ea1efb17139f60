"""What is sampled of methods, and which come first: packaged recipes (:mod:`.losses`), then the usual ways.

Cheap before dear: of the trials two thirds round alone and draw the front of size and damage; the last third
learns too, at the whole budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..losses import packaged_methods
from ..methods import CUTS, QAT, ROUNDINGS, SOLVED, TUNE, Method
from ..quantities import DECODE, DISK, MEMORY
from ..search import Search
from ..solve import Infeasible

_EPOCHS = (1, 2, 4, 8)
# First of the cheap trials; the dear ones begin with what rounds best.
PRESETS = (Method(), Method("corrected"), Method("corrected", scaled=True), Method("rtn"), Method(cut=SOLVED))
_FRONT = (0.5, 0.25, 0.75, 0.0)  # shares of the bytes


def is_dear(number: int, trials: int) -> bool:
    """Whether the trial of that ``number``, of so many, learns."""
    return number >= trials - trials // 3


def method_of(parameters: Mapping[str, Any], packaged: str = "") -> Method:
    """The method of a sample, which is nearest to the ``packaged`` recipe if there is one."""
    if packaged:
        return next(one for one in packaged_methods() if one.packaged == packaged)
    found = Method(**{name: value for name, value in parameters.items() if name != "share"})
    return found if found.cut else replace(found, recovered=False)  # nothing went


def sampled(search: Search, *, dear: bool) -> dict[str, Any]:
    """What is sampled, by name: a share of the bytes, unless these are made least, or how it learns."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, Any] = {
        "rounding": CategoricalDistribution(tuple(ROUNDINGS)),
        "scaled": CategoricalDistribution((False, True)),
        "rotated": CategoricalDistribution((False, True)),
        "cut": CategoricalDistribution(("", SOLVED, *CUTS)),
    }
    if search.space.cache and any(one.quantity in (MEMORY, DECODE) for one in search.budgets):
        found["cached"] = CategoricalDistribution((False, True))
    if dear:
        return found | {
            "epochs": CategoricalDistribution(_EPOCHS),
            "learned": CategoricalDistribution((TUNE, QAT)),
            "recovered": CategoricalDistribution((False, True)),
        }
    if search.choices.objective == DISK.name:
        return found
    return found | {"share": FloatDistribution(0.0, 1.0, step=0.0625)}


def first_of(search: Search, presets: Sequence[Method], *, dear: bool) -> list[tuple[dict[str, Any], str]]:
    """Parameters of the first trials of a kind, unless all are sampled, each with the packaged recipe that it
    stands for, or "": such a recipe, the usual methods at the whole budget, then the best of them along the
    front; of the dear ones the best with learning, and a recipe.
    """
    if not presets:
        return []
    found = search.best() or search.nearest()
    best = Method("corrected") if found is None else replace(found.method, uniform=False, packaged="")
    if dear:
        first = [(replace(best, epochs=4), 1.0)]
    else:
        first = [*((method, 1.0) for method in presets), *((best, share) for share in _FRONT)]
    names = sampled(search, dear=dear)
    wanted = [
        {name: share if name == "share" else getattr(method, name) for name in names}
        for method, share in first
    ]
    usual = [*({**one, "cached": True} for one in wanted if "cached" in names), *wanted]
    recipes = [
        ({name: 1.0 if name == "share" else getattr(method, name) for name in names}, method.packaged)
        for method in _packaged(search, cached="cached" in names, dear=dear)
    ]
    ours = [(one, "") for one in usual]
    return [*ours, *recipes] if dear else [*recipes, *ours]


def _packaged(search: Search, *, cached: bool, dear: bool) -> list[Method]:
    """Of the packaged recipes whose choice is predicted to keep the budgets that with the least damage, and
    of those with equal schemes the one that rounds best; none where no recipe does.
    """
    best: tuple[float, Method] | None = None
    for method in packaged_methods():
        kind = (method.epochs in _EPOCHS) if dear else not method.epochs
        if not kind or (method.cached and not cached) or not search.choices.spaces.knows(method.packaged):
            continue
        found = search.choices.solved(method)
        if not isinstance(found, Infeasible) and (best is None or found.damage < best[0]):
            best = found.damage, method
    return [] if best is None else [best[1]]
