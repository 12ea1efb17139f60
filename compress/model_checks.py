"""Whether the passes of a recipe can work on a model of such shapes, such a kind and such a cache."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..errors import InputError, RecipeError, ShapeError
from .group_sizes import groups_refused, listed
from .model.anatomy import Anatomy
from .model.block_anatomy import Linear
from .model.gguf.features import architecture_of, refuse_rounded
from .model.gguf.types import WAY_OUT, type_of
from .model.kv_scheme import KVScheme
from .model.weights import AS_EMBEDDING, WeightSource
from .numbers.scheme import WORD_SIDE, Scheme
from .pipeline.algorithm import CROSS, EXPERTS, SOUND, STATES, Pass
from .pipeline.block_pass import Selective, names_layer
from .pipeline.pass_names import pass_names
from .pipeline.pass_options import pass_type
from .recipe import Recipe
from .recipe_files import REQUANTIZE

# Features that a pass must know, by how a refusal calls them, and which of models has them.
_ASKED: tuple[tuple[str, str, Callable[[Anatomy], bool]], ...] = (
    (EXPERTS, "a mixture of experts", lambda anatomy: anatomy.has_experts),
    (EXPERTS, "latent attention", lambda anatomy: anatomy.has_latents),
    (STATES, "blocks without attention", lambda anatomy: not anatomy.attends),
    (CROSS, "an encoder–decoder", lambda anatomy: anatomy.kind == "encoder_decoder"),
    (SOUND, "a model that hears", lambda anatomy: anatomy.hearing is not None),
)
_ALONE = (
    "GGUF's own types are for llama.cpp alone, and `edgepress export --format gguf` would refuse the rest"
)
_FLOAT = "float"
_BEFORE = "the model as it came"


def check_shapes(anatomy: Anatomy, recipe: Recipe) -> None:
    """Refuse groups that do not divide."""
    for name, step in recipe.steps:
        scheme, selected = step.weight_scheme, step.selected(anatomy)
        anatomy = step.anatomy_after(anatomy)
        misfits: dict[int, list[str]] = defaultdict(list)
        for linear in selected:
            if linear.in_features % step.inputs_multiple:
                misfits[linear.in_features].append(linear.name)
        if misfits and scheme is not None:
            raise groups_refused(f"pass {name}", misfits, scheme, [linear.in_features for linear in selected])
        if misfits:
            raise ShapeError(
                f"pass {name}: groups of {step.inputs_multiple} inputs do not divide {listed(misfits)}",
                fix="name these layers in the pass's `ignore`, or give a sparsity instead of the pattern",
            )
    for table, scheme in zip(("embedding", "head"), recipe.tables, strict=True):
        groups = None if scheme is None or anatomy.patches is not None else scheme.group_size
        if scheme is not None and groups is not None and anatomy.hidden_size % groups:
            misfits = {anatomy.hidden_size: [anatomy.embedding]}
            raise groups_refused(table, misfits, scheme, [anatomy.hidden_size])


def check_kind(anatomy: Anatomy, recipe: Recipe) -> None:
    """Refuse passes that do not know a feature of the model."""
    for name, step in recipe.steps:
        met = [asked for asked in _ASKED if asked[2](anatomy)]
        # Options are asked about where the pass works at all: what they read need not be there otherwise.
        refused = step.refuses(anatomy) if all(feature in step.works_on for feature, *_ in met) else {}
        for feature, called, _ in met:
            if feature not in step.works_on or feature in refused:
                raise RecipeError(
                    f"pass {name} does not work as asked on {called} ({anatomy.model_type})",
                    why=refused.get(feature, ""),
                    fix=f"these do: {', '.join(_knowing(feature))}",
                )
        if anatomy.has_latents and step.rounds_cache:
            raise RecipeError(
                f"pass {name} does not work on latent attention: {anatomy.model_type} has it",
                why="keys and values come from a narrow state",
                fix="leave the cache in float",
            )
        scheme = step.weight_scheme
        if scheme is not None and scheme.of_trellis:
            _check_trellis(anatomy, name, scheme)
        of_floats = scheme is not None and scheme.format != "int" and not scheme.of_gguf
        if anatomy.has_experts and scheme is not None and of_floats:
            raise RecipeError(
                f"pass {name}: {scheme.name} is not for a mixture of experts",
                why="transformers reads experts in such numbers wrongly, and nothing else was tried",
                fix="take integers, W4A16 or W8A8, or for llama.cpp GGUF's own types, such as Q4_K",
            )
        if scheme is not None and scheme.of_gguf:
            _check_gguf(anatomy, name, scheme)


def _knowing(feature: str) -> list[str]:
    """The passes that know it with some of their options."""
    return [name for name in pass_names() if feature in pass_type(name).works_on]


def _check_trellis(anatomy: Anatomy, name: str, scheme: Scheme) -> None:
    """Refuse words of a trellis to a model whose layers the graph takes apart."""
    orders = (order for block in anatomy.blocks for order in block.row_orders().values())
    if anatomy.has_experts:
        why = "the product of a mixture's experts does not read words"
    elif any(map(_takes_words_apart, orders)):
        why = f"graphs read the rows of its linears in another order, which takes words of {WORD_SIDE} apart"
    else:
        return
    raise RecipeError(
        f"pass {name}: {scheme.name} is not for a {anatomy.model_type}",
        why=why,
        fix=f"take integers, such as W{scheme.bits}A16",
    )


def _takes_words_apart(order: list[int]) -> bool:
    words = (order[start : start + WORD_SIDE] for start in range(0, len(order), WORD_SIDE))
    return any(one[0] % WORD_SIDE or one != list(range(one[0], one[0] + len(one))) for one in words)


def _check_gguf(anatomy: Anatomy, name: str, scheme: Scheme) -> None:
    """Refuse a type that llama.cpp alone reads to a model that is not written for it."""
    way = "take integers, such as W4A16 or W8A8"
    try:
        refuse_rounded(architecture_of(anatomy), f"a {anatomy.model_type}", way)
    except InputError as error:
        raise RecipeError(
            f"pass {name}: {scheme.name} is for llama.cpp alone, and {error.what}", why=error.why, fix=way
        ) from error


def check_cache(anatomy: Anatomy, present: KVScheme | None, recipe: Recipe) -> None:
    """Refuse to quantize a cache that is not there, or to change weights under the scales of one.

    ``present`` is the scheme of the cache that the model comes with.
    """
    name, last = recipe.steps[-1]
    if last.kv_scheme is not None and anatomy.kind == "encoder":
        raise RecipeError(f"pass {name}: an encoder ({anatomy.model_type}) has no key/value cache")
    if present is not None and last.kv_scheme is None:
        raise RecipeError(
            f"the model has a quantized key/value cache ({present.name})",
            why="its scales belong to the weights as they are",
            fix="end the recipe with the pass kv_cache, which finds new ones",
        )


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
