"""What a recipe says of layers, held against a model: entries of ``targets`` and ``ignore`` that name
nothing, and layers that would be quantized twice.
"""

from __future__ import annotations

from ..errors import RecipeError
from .model.anatomy import Anatomy
from .model.weights import AS_EMBEDDING, WeightSource
from .pipeline.algorithm import Pass
from .pipeline.block_pass import Selective, names_layer
from .recipe import Recipe
from .recipe_files import REQUANTIZE

_BEFORE = "the model as it came"


def check_named(anatomy: Anatomy, name: str, step: Pass) -> None:
    """Refuse an entry of ``targets`` or ``ignore`` of the pass ``name`` that names nothing in the model."""
    if not isinstance(step, Selective):
        return
    linears: list[tuple[str, str]] = [(linear.name, linear.role) for linear in anatomy.linears()]
    # No pass works on these, but recipes of other tools leave them out by name.
    others = list(anatomy.gates())
    others += [module for module in (anatomy.embedding, anatomy.head, "lm_head") if module is not None]
    known = {"targets": linears, "ignore": [*linears, *((module, "") for module in others)]}
    for key, layers in known.items():
        for pattern in getattr(step, key):
            if not any(names_layer(pattern, *layer) for layer in layers):
                roles = ", ".join(sorted({role for _, role in linears}))
                raise RecipeError(
                    f"pass {name}: {pattern} in its {key} matches no layer of this model",
                    fix=f"name layers as {linears[0][0]} is, by globs, by regular expressions behind re:, or "
                    f"by role: {roles}; a recipe's own keys embedding and head have the schemes of those",
                )


def check_head(anatomy: Anatomy, recipe: Recipe) -> None:
    """Refuse a scheme for a head that ``anatomy``, of the finished model, does not have of its own; a pass
    that adds one counts.
    """
    added = any(step.added_bytes(anatomy) for _, step in recipe.steps)
    if recipe.head != AS_EMBEDDING and (anatomy.head is None or (anatomy.tied and not added)):
        why = "it has no head" if anatomy.head is None else "its head is the embedding (they are tied)"
        raise RecipeError(
            "the recipe has a scheme for a head of the model's own", why=why, fix="leave out head"
        )


def check_requantized(
    source: WeightSource, recipe: Recipe, *, again: bool = False, everywhere: bool = False
) -> tuple[str, ...]:
    """What to say of passes that give new codes to layers which have some, from an earlier pass or from the
    start; ``again``: those of the start may be given new ones, ``everywhere``: all layers had some.
    """
    anatomy, notes = source.anatomy, list[str]()
    linears = [linear.name for linear in anatomy.linears()] if everywhere else []
    coded = dict.fromkeys((*source.schemes, *source.reader.coded.quantized(), *linears), _BEFORE)
    for step in recipe.passes:
        mine = [linear.name for linear in step.options.selected(anatomy) if step.options.quantizes(linear)]
        twice = [name for name in mine if name in coded and not step.options.keeps_codes]
        if twice:
            earlier = coded[twice[0]]
            said = f"{step.name} quantizes {len(twice)} layers that already have codes from {earlier}"
            if not step.requantize and not (again and earlier == _BEFORE):
                raise _refused(said, twice[0], step.name, earlier == _BEFORE)
            notes.append(said)
        coded |= {name: f"the pass {step.name}" for name in mine if name not in coded or name in twice}
        anatomy = step.options.anatomy_after(anatomy)
    return tuple(notes)


def _refused(said: str, layer: str, name: str, before: bool) -> RecipeError:
    """The error for codes of the model as it came (``before``), or of an earlier pass."""
    word = f"{REQUANTIZE}: true in {name}"
    other = "leave one of the passes out, give them different targets"
    mine = "start from the model as it was before it was quantized, or if this is meant, say --requantize"
    return RecipeError(
        f"{said}, for example {layer}",
        why="rounding what is rounded adds a second error to the first, unless that is meant",
        fix=f"{mine if before else other}, or write {word}",
    )
