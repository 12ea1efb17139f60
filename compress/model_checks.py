"""Whether the passes of a recipe can work on a model of such shapes, such a kind and such a cache."""

from __future__ import annotations

from collections import defaultdict

from ..errors import InputError, RecipeError, ShapeError
from .group_sizes import groups_refused, listed
from .model.anatomy import Anatomy
from .model.gguf.features import architecture_of, refuse_rounded
from .model.kv_scheme import KVScheme
from .numbers.scheme import Scheme
from .recipe import Recipe

_FOR_EXPERTS = (
    "rtn, hqq, gptq, k_quants, awq, smoothquant, autoround, block_qat, allocate, rotate, embedding, prune, "
    "sparsegpt, alps, allocate_sparsity, experts, vocabulary, tune, qat, ternary, distill"
)


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
    """Refuse an encoder–decoder to passes that know one stack alone, a mixture of experts to those that do
    not know experts, and blocks without attention to those that need it.
    """
    for name, step in recipe.steps:
        if anatomy.has_experts and not step.knows_experts:
            raise RecipeError(
                f"pass {name} does not work on a mixture of experts as asked: {anatomy.model_type} is one",
                why=step.why_no_experts,
                fix=f"these do: {_FOR_EXPERTS}, kv_cache, narrow of heads, or of MLPs to one width, and "
                "layers and width without a repair",
            )
        if anatomy.has_latents and (not step.knows_experts or step.rounds_cache):
            raise RecipeError(
                f"pass {name} does not work on latent attention as asked: {anatomy.model_type} has it",
                why="keys and values come from a narrow state" if step.rounds_cache else step.why_no_experts,
                fix=f"these do, with keys and values in float: {_FOR_EXPERTS}, and layers and width without "
                "a repair",
            )
        scheme = step.weight_scheme
        of_floats = scheme is not None and scheme.format != "int" and not scheme.of_gguf
        if anatomy.has_experts and scheme is not None and of_floats:
            raise RecipeError(
                f"pass {name}: {scheme.name} is not for a mixture of experts",
                why="transformers reads experts in such numbers wrongly, and nothing else was tried",
                fix="take integers, W4A16 or W8A8, or for llama.cpp GGUF's own types, such as Q4_K",
            )
        if scheme is not None and scheme.of_gguf:
            _check_gguf(anatomy, name, scheme)
        if not anatomy.attends and not step.knows_states:
            raise RecipeError(
                f"pass {name} does not work on a {anatomy.model_type}: some of its blocks have no attention",
                fix="these do: rtn, hqq, gptq, awq, smoothquant, autoround, prune, sparsegpt, alps, "
                "kv_cache, embedding, layers, and block_qat without fisher",
            )
        if anatomy.kind == "encoder_decoder" and not step.knows_encoder_decoders:
            raise RecipeError(
                f"pass {name} does not work on encoder–decoders yet: {anatomy.model_type} is one",
                why=step.why_no_encoder_decoder(anatomy),
                fix="these do: rtn, hqq, gptq, awq, smoothquant, autoround, block_qat, allocate, prune, "
                "sparsegpt, alps, allocate_sparsity, layers, narrow, vocabulary, rotate, embedding, tune, "
                "qat, ternary, distill and kv_cache",
            )
        if anatomy.hearing is not None and not step.knows_hearing:
            raise RecipeError(
                f"pass {name} does not work on models that hear as asked: {anatomy.model_type} is one",
                fix="these do: rtn, hqq, gptq, awq, smoothquant, autoround, block_qat, allocate, prune, "
                "sparsegpt, alps, allocate_sparsity, layers, narrow, vocabulary, rotate, embedding, tune, "
                "qat, ternary, distill and kv_cache",
            )


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
