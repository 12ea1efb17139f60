"""The recipe that a caller asks for: one by its name or file, or by a scheme, whose groups are the largest
that fit the model.

``--max-time``: one bound for all passes of a recipe that learn, in the place of those that they have.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from ..errors import RecipeError
from .model.anatomy import Anatomy
from .model.block_anatomy import Linear
from .model.weights import DEFAULT_EMBEDDING
from .model_checks import check_kind, check_shapes
from .numbers.scheme import DEFAULT_GROUP_SIZE, GROUP_SIZES, Scheme
from .recipe import Recipe, Step, load_recipe, parse
from .recipe_files import scheme_asked
from .train.learning import Learning

_SMALL_BLOCKS = "IQ4_NL"
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a block or an expert, in a name
# The groups that a scheme without one may take, the largest first.
_SIZES = tuple(size for size in reversed(GROUP_SIZES) if size <= DEFAULT_GROUP_SIZE)


class AskedRecipe:
    """A ``recipe``, or the ``scheme`` with ``group_size`` that stands for one; ``calibrated`` says whether
    there is text for it.
    """

    def __init__(
        self, recipe: str | None, scheme: str | None, group_size: int | None, *, calibrated: bool
    ) -> None:
        self._read = None if recipe is None else load_recipe(recipe)
        self._scheme, self._group_size, self._calibrated = str(scheme), group_size, calibrated

    def of(self, anatomy: Anatomy) -> Recipe:
        """The recipe for such a model."""
        return self._read or recipe_for(
            self._scheme, group_size=self._group_size, calibrated=self._calibrated, anatomy=anatomy
        )

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a model that the recipe cannot work on, by its anatomy alone."""
        recipe = self.of(anatomy)
        check_kind(anatomy, recipe)
        check_shapes(anatomy, recipe)


def recipe_for(scheme: str, *, group_size: int | None, calibrated: bool, anatomy: Anatomy) -> Recipe:
    """The recipe behind ``--scheme``: ``gptq`` with calibration text, else ``rtn``; FP8 and int8 activations
    are ``rtn`` always, since there is little left to gain.

    A scheme that names no group takes the largest, up to 128, that divides every layer; where none does,
    each layer its own largest, and one scale per channel where 16 does not divide it.
    """
    parsed = scheme_asked(scheme, group_size)
    if parsed.of_gguf:
        return _of_gguf(parsed, calibrated, anatomy)
    integers = parsed.format == "int"
    weights_only = parsed.activations is None
    name = "gptq" if calibrated and parsed.format != "fp8" and (weights_only or not integers) else "rtn"
    called = name if weights_only or not integers else ""  # W8A8 needs no other pass
    if group_size is not None or not integers or Scheme.names_its_groups(scheme):
        return _recipe(parsed, called, [{"pass": name, "scheme": parsed.name}], anatomy)
    by_size = _by_size(list(anatomy.linears()))
    schemes = {size: parsed.model_copy(update={"group_size": size}) for size in by_size}
    passes: list[dict[str, Any]] = [{"pass": name, "scheme": schemes[size].name} for size in by_size]
    if len(by_size) > 1:
        for step, layers in zip(passes, by_size.values(), strict=True):
            step["targets"] = _targets(layers, anatomy)
    recipe = _recipe(next(iter(schemes.values())), called, passes, anatomy)
    return recipe.model_copy(update={"notes": (_told(parsed, by_size),)})


def _of_gguf(scheme: Scheme, calibrated: bool, anatomy: Anatomy) -> Recipe:
    """Of GGUF's type ``scheme``, and ``IQ4_NL`` where the inputs of a layer are no whole blocks."""
    fits = {True: list[Linear](), False: list[Linear]()}
    for linear in anatomy.linears():
        fits[linear.in_features % scheme.block == 0].append(linear)
    chosen = [(scheme.name, fits[True]), (_SMALL_BLOCKS, fits[False])]
    way: dict[str, Any] = {"pass": "gptq"} if calibrated else {"pass": "k_quants", "importance": False}
    passes: list[dict[str, Any]] = [
        {**way, "scheme": name, "targets": _targets(layers, anatomy)} for name, layers in chosen if layers
    ]
    if len(passes) == 1:
        del passes[0]["targets"]
    recipe = _recipe(scheme, str(way["pass"]), passes, anatomy)
    if not fits[False]:
        return recipe
    note = f"{_SMALL_BLOCKS} for {len(fits[False])} layers whose inputs are no blocks of {scheme.block}"
    return recipe.model_copy(update={"notes": (note,)})


def _recipe(scheme: Scheme, called: str, passes: list[dict[str, Any]], anatomy: Anatomy) -> Recipe:
    """The recipe of ``passes``; where groups of 32 do not fit, the embedding has smaller ones or none."""
    embedding: str | None = DEFAULT_EMBEDDING
    if anatomy.patches is not None:
        embedding = None
    elif anatomy.hidden_size % 32:
        embedding = "W8A16-g16" if anatomy.hidden_size % 16 == 0 else None
    name = "-".join(filter(None, (scheme.name.lower(), called)))
    return parse({"name": name, "passes": passes, "embedding": embedding}, "--scheme")


def _by_size(linears: Sequence[Linear]) -> dict[int | None, list[Linear]]:
    """The layers by the size of their groups, the largest first; None is one scale per channel."""
    for size in _SIZES:
        if all(linear.in_features % size == 0 for linear in linears):
            return {size: list(linears)}
    found: dict[int | None, list[Linear]] = defaultdict(list)
    for linear in linears:
        found[next((size for size in _SIZES if linear.in_features % size == 0), None)].append(linear)
    return dict(sorted(found.items(), key=lambda item: -(item[0] or 0)))


def _targets(layers: Sequence[Linear], anatomy: Anatomy) -> list[str]:
    """``layers`` by their roles where these say it, else by names in which the numbers of blocks and experts
    are ``*`` where that names no other layer.
    """
    chosen = {layer.name for layer in layers}
    roles = sorted({layer.role for layer in layers})
    every = [(linear.name, linear.role) for linear in anatomy.linears()]
    if {name for name, role in every if role in roles} == chosen:
        return list(roles)
    same: dict[str, list[str]] = defaultdict(list)
    for name in sorted(chosen):
        same[_NUMBER.sub("*", name)].append(name)
    found: list[str] = []
    for pattern, named in same.items():
        alone = all(name in chosen for name, _ in every if fnmatchcase(name, pattern))
        found += [pattern] if alone else named
    return found


def _told(scheme: Scheme, by_size: dict[int | None, list[Linear]]) -> str:
    head = scheme.name.partition("-")[0]
    if len(by_size) == 1:
        size, layers = next(iter(by_size.items()))
        widths = " and ".join(str(width) for width in sorted({layer.in_features for layer in layers}))
        return f"{head} with groups of {size}, the largest that divide every layer ({widths} inputs)"
    parts = [
        f"{'one scale per channel' if size is None else f'groups of {size}'} for {len(layers)} layers"
        for size, layers in by_size.items()
    ]
    return f"{head}: no group divides every layer, so {', '.join(parts)}"


def limited(recipe: Recipe, minutes: float) -> Recipe:
    """``recipe`` with every pass that learns ending after ``minutes``."""
    if not minutes > 0:
        raise RecipeError(f"--max-time {minutes:g} leaves no time to learn", fix="give minutes, such as 30")
    if not any(map(_learns, recipe.passes)):
        names = ", ".join(step.name for step in recipe.passes)
        raise RecipeError(
            f"--max-time bounds passes that learn, and the recipe {recipe.name} has none ({names})",
            fix="leave --max-time out; distill, qat, ternary and tune learn",
        )
    return recipe.model_copy(update={"passes": tuple(_limited(step, minutes) for step in recipe.passes)})


def _learns(step: Step) -> bool:
    return isinstance(step.options, Learning)


def _limited(step: Step, minutes: float) -> Step:
    if not isinstance(step.options, Learning):
        return step
    training = step.options.training.but(max_time=minutes)
    return step.model_copy(update={"options": step.options.model_copy(update={"training": training})})
