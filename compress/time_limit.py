"""``--max-time``: one bound for all passes of a recipe that learn, in the place of those that they have."""

from __future__ import annotations

from ..errors import RecipeError
from .recipe import Recipe, Step
from .train.learning import Learning


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
