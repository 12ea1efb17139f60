"""The packaged recipes among the first trials of a search, word for word: what it finds should be no worse.

Those whose passes change nothing but how weights are stored, in schemes that are candidates: their bytes and
damage are predicted as of any choice, of one option for each part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import Scheme
from ..compress.pipeline.chain import schemes_after
from ..compress.recipe import CalibrationSettings, Recipe, load_recipe
from ..compress.recipe_files import names, text_of
from ..compress.solve.scheme_costs import divides
from ..files.yaml_safe import load_yaml
from .losses import linear_schemes
from .methods import Method
from .table_losses import table_schemes

_PASSES = frozenset({"awq", "embedding", "gptq", "hqq", "kv_cache", "rtn", "tune"})
# Of equal schemes the first counts.
_BETTER = ("corrected", "gptq", "rtn")

Given = Mapping[str, Scheme | None]


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
