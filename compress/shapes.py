"""Which layers a recipe's groups divide: reported before any calibration starts, with the way out."""

from __future__ import annotations

from collections import defaultdict

from ..errors import RecipeError, ShapeError
from .model.anatomy import Anatomy
from .model.kv_scheme import KVScheme
from .numbers.scheme import GROUP_SIZES, Scheme
from .pipeline.algorithm import Pass
from .recipe import Recipe


def fitting_groups(in_features: list[int]) -> list[int]:
    """Standard group sizes that divide every width in ``in_features``."""
    return [size for size in GROUP_SIZES if all(width % size == 0 for width in in_features)]


def _listed(misfits: dict[int, list[str]]) -> str:
    return "; ".join(
        f"{len(names)} layers with {width} inputs, for example {names[0]}"
        for width, names in sorted(misfits.items())
    )


def _refuse(what: str, misfits: dict[int, list[str]], scheme: Scheme, widths: list[int]) -> ShapeError:
    fits = fitting_groups(widths)
    if scheme.format != "int":
        way_out = f"{scheme.name} has no other groups: `ignore` these layers, or choose FP8_DYNAMIC"
        return ShapeError(
            f"{what}: group size {scheme.group_size} does not divide {_listed(misfits)}", fix=way_out
        )
    way_out = f"group sizes that fit all of them: {', '.join(map(str, fits))}; " if fits else ""
    return ShapeError(
        f"{what}: group size {scheme.group_size} does not divide {_listed(misfits)}",
        fix=f"{way_out}or one scale per channel (W{scheme.bits}A16-channel); a pass can also `ignore` layers",
    )


def check_shapes(anatomy: Anatomy, recipe: Recipe) -> None:
    """Refuse groups that do not divide.

    Raises:
        ShapeError: names the layers and the group sizes that would fit.
        RecipeError: a pass that cannot make a model of these shapes smaller as asked.
        UnknownName: a pass whose targets match no layer (raised as RecipeError by the caller's plan).
    """
    for name, step in recipe.steps:
        _check_experts(anatomy, name, step)
        scheme, selected = step.weight_scheme, step.selected(anatomy)
        anatomy = step.anatomy_after(anatomy)
        misfits: dict[int, list[str]] = defaultdict(list)
        for linear in selected:
            if linear.in_features % step.inputs_multiple:
                misfits[linear.in_features].append(linear.name)
        if misfits and scheme is not None:
            raise _refuse(f"pass {name}", misfits, scheme, [linear.in_features for linear in selected])
        if misfits:
            raise ShapeError(
                f"pass {name}: groups of {step.inputs_multiple} inputs do not divide {_listed(misfits)}",
                fix="name these layers in the pass's `ignore`, or give a sparsity instead of the pattern",
            )
    if recipe.embedding is not None:
        scheme = Scheme.parse(recipe.embedding)
        if scheme.group_size is not None and anatomy.hidden_size % scheme.group_size:
            misfits = {anatomy.hidden_size: [anatomy.embedding]}
            raise _refuse("embedding", misfits, scheme, [anatomy.hidden_size])


def _check_experts(anatomy: Anatomy, name: str, step: Pass) -> None:
    mixed = next((block for block in anatomy.blocks if block.experts is not None), None)
    if mixed is not None and not step.knows_experts:
        raise RecipeError(
            f"pass {name} does not work on a mixture of experts yet: {mixed.prefix} is one",
            fix="the pass experts does",
        )


def check_kind(anatomy: Anatomy, recipe: Recipe) -> None:
    """Refuse an encoder–decoder to passes that do not know its second stack.

    Raises:
        RecipeError: names the pass.
    """
    for name, step in recipe.steps:
        if anatomy.kind == "encoder_decoder" and not step.knows_encoder_decoders:
            raise RecipeError(
                f"pass {name} does not work on encoder–decoders yet: {anatomy.model_type} is one",
                fix="the pass distill does, with its losses of sequences (not losses: outputs)",
            )


def check_cache(anatomy: Anatomy, present: KVScheme | None, recipe: Recipe) -> None:
    """Refuse to quantize a cache that is not there, or to change weights under the scales of one.

    ``present`` is the scheme of the cache that the model comes with.

    Raises:
        RecipeError: names the pass and the way out.
    """
    name, last = recipe.steps[-1]
    if last.kv_scheme is not None and anatomy.kind != "decoder":
        raise RecipeError(f"pass {name}: an encoder ({anatomy.model_type}) has no key/value cache")
    if present is not None and last.kv_scheme is None:
        raise RecipeError(
            f"the model has a quantized key/value cache ({present.name})",
            why="its scales belong to the weights as they are",
            fix="end the recipe with the pass kv_cache, which finds new ones",
        )
