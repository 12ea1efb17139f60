"""Whether a model with weights in GGUF's own types is one that ``export --format gguf`` writes: nothing but
llama.cpp reads them, so that what has no place in such a file is refused before any work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..errors import RecipeError
from .model.anatomy import Anatomy
from .model.block_anatomy import Linear
from .model.gguf.features import architecture_of
from .model.gguf.types import WAY_OUT, type_of
from .model.weights import WeightSource
from .numbers.scheme import Scheme
from .recipe import Recipe

_ALONE = (
    "GGUF's own types are for llama.cpp alone, and `edgepress export --format gguf` would refuse the rest"
)
_FLOAT = "float"


def check_gguf_types(source: WeightSource, recipe: Recipe, left: Anatomy) -> None:
    """Refuse other schemes beside types of GGUF's own where the file has no type for them, or one type for
    several of them. ``left`` is what the passes leave of the model.
    """
    schemes = _schemes(source, recipe)
    if not any(scheme is not None and scheme.of_gguf for scheme in schemes.values()):
        return
    types = {linear.name: _type(linear.name, linear.in_features, schemes) for linear in left.linears()}
    for table, scheme in zip((left.embedding, None if left.tied else left.head), recipe.tables, strict=True):
        if table is not None and scheme is not None:
            _type(table, left.hidden_size, {table: scheme})
    for of, together in _in_one(left, joined=architecture_of(source.anatomy).joined):
        found = {types[linear.name] for linear in together} - {""}
        if len(found) > 1:
            raise RecipeError(
                f"{together[0].name} and others are one tensor of {of} in GGUF, and would be "
                f"{' and '.join(sorted(found))}",
                why=_ALONE,
                fix=f"give {of} of a block one scheme",
            )


def _schemes(source: WeightSource, recipe: Recipe) -> dict[str, Scheme | None]:
    """The scheme of each layer that has codes afterwards, by name; None where a pass will choose it."""
    found: dict[str, Scheme | None] = dict(source.schemes)
    anatomy = source.anatomy
    for _, step in recipe.steps:
        after = step.anatomy_after(anatomy)
        left = {linear.name: linear for linear in after.linears()}
        for name in (linear.name for linear in step.selected(anatomy) if linear.name in left):
            scheme = step.scheme_of(left[name])
            if scheme is not None or step.bits_per_weight(left[name].in_features) is not None:
                found[name] = scheme
        anatomy = after
    return found


def _type(name: str, in_features: int, schemes: Mapping[str, Scheme | None]) -> str:
    """The type of a layer; empty where a pass will choose it."""
    if name not in schemes:
        return _FLOAT
    scheme = schemes[name]
    if scheme is None:
        return ""
    found = type_of(scheme, in_features)
    if found is None:
        raise RecipeError(
            f"{name} would be {scheme.name}, which GGUF has no type for, beside types of GGUF's own",
            why=_ALONE,
            fix=WAY_OUT,
        )
    return found


def _in_one(left: Anatomy, *, joined: bool) -> Iterator[tuple[str, Sequence[Linear]]]:
    """The layers of a block that are one tensor in the file, and what they are together."""
    for block in left.blocks:
        if joined:
            yield "q, k and v", block.attention.projections
        experts = [(*mlp.projections, mlp.down) for mlp in block.expert_mlps()]
        for together in zip(*experts, strict=True):
            yield "all experts", together
