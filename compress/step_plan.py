"""What each pass of a recipe will do to a model's layers: their number, and their bytes before and after."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RecipeError
from .bundle_size import bits_in_bundle, experts_in_float
from .model.anatomy import Anatomy
from .model.block_anatomy import Linear
from .model.weights import WeightSource
from .pipeline.advance import weights_of
from .pipeline.algorithm import Pass
from .recipe import Recipe
from .recipe_words import check_named


@dataclass(frozen=True)
class StepPlan:
    """One pass: how many layers and weights it works on, and their bytes before and after. Of a pass on
    embedding and head the weights are theirs, and there are no layers.
    """

    step: str
    scheme: str
    layers: int
    weights: int
    bytes_before: int
    bytes_after: int


def step_plans(source: WeightSource, recipe: Recipe) -> tuple[list[StepPlan], Anatomy, dict[str, float]]:
    """The steps, what they leave of the model, and the bits of a weight of each linear in a bundle."""
    plans, anatomy = [], source.anatomy
    bits = {
        one.name: bits_in_bundle(source.schemes[one.name], one.in_features)
        for one in anatomy.linears()
        if one.name in source.schemes
    }
    for name in experts_in_float(source):
        bits.pop(name, None)
    stored_bytes = {one.name: source.stored_bytes(f"{one.name}.weight") for one in anatomy.linears()}
    for name, step in recipe.steps:
        after_it = step.anatomy_after(anatomy)
        left = {linear.name: linear for linear in after_it.linears()}
        selected = step.selected(anatomy)
        check_named(anatomy, name, step)
        if not selected:
            raise RecipeError(
                f"pass {name}: its targets match no layer that it works on and that its ignore leaves to it",
                fix="change targets or ignore, or leave the pass out",
            )
        before = sum(stored_bytes[linear.name] for linear in selected)
        for linear in selected:
            stored_bytes[linear.name] = _bytes_after(
                step, linear, left.get(linear.name), stored_bytes[linear.name]
            )
            bits |= _bits_after(step, left.get(linear.name))
        after = sum(stored_bytes[linear.name] for linear in selected)
        scheme = step.weight_scheme
        label = scheme.name if scheme else step.label
        if step.on_tables:
            plans.append(_on_tables(source, name, label, anatomy, after_it))
        else:
            if after_it.hidden_size != anatomy.hidden_size:  # embedding and head are as wide as the model
                before += _tables_bytes(source, anatomy)
                after += _tables_bytes(source, after_it)
            plans.append(StepPlan(name, label, len(selected), sum(map(weights_of, selected)), before, after))
        anatomy = after_it
    return plans, anatomy, bits


def _on_tables(source: WeightSource, name: str, label: str, anatomy: Anatomy, left: Anatomy) -> StepPlan:
    """A pass on embedding and head, which keeps their type and ``left.vocab_size`` rows."""
    weights = len(_tables(anatomy)) * anatomy.vocab_size * anatomy.hidden_size
    return StepPlan(name, label, 0, weights, _tables_bytes(source, anatomy), _tables_bytes(source, left))


def _tables(anatomy: Anatomy) -> list[str]:
    """The embedding, and the head where it is another matrix."""
    return [anatomy.embedding, *([anatomy.head] if anatomy.head and not anatomy.tied else [])]


def _tables_bytes(source: WeightSource, left: Anatomy) -> int:
    """Bytes of embedding and head in their type, with the vocabulary and the width that are ``left``."""
    stored = sum(source.stored_bytes(f"{table}.weight") for table in _tables(source.anatomy))
    whole = source.anatomy.vocab_size * source.anatomy.hidden_size
    return stored * left.vocab_size * left.hidden_size // whole


def _bits_after(step: Pass, left: Linear | None) -> dict[str, float]:
    """Bits of a weight of what the pass leaves of a linear, in a bundle; empty where it does not round it."""
    if left is None or (stored := step.bits_per_weight(left.in_features)) is None:
        return {}
    scheme = step.scheme_of(left)
    return {left.name: stored if scheme is None else bits_in_bundle(scheme, left.in_features)}


def _bytes_after(step: Pass, linear: Linear, left: Linear | None, stored: int) -> int:
    """Bytes of ``linear`` when the pass has made it what is ``left`` of it."""
    if left is None:
        return 0
    scheme = step.scheme_of(left)
    bits = (step if scheme is None else scheme).bits_per_weight(left.in_features)
    if bits is None:
        return stored * weights_of(left) // weights_of(linear)
    return int(weights_of(left) * bits / 8)
