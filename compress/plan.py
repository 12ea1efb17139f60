"""The plan of a compression: what each step does and will cost in memory, disk and time, before it all runs;
and what is refused there, with the way out: groups that do not divide, passes that do not know such models.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from operator import sub
from typing import Any

from ..errors import RecipeError, ShapeError
from ..runtime.session.needs import resident
from .bundle_size import bits_in_bundle, bundle_bytes
from .costs import LIBRARIES, predict_disk, predict_memory, probe_work, seconds_of
from .group_sizes import groups_refused, listed
from .model.anatomy import Anatomy
from .model.block_anatomy import Linear
from .model.graph_limits import require_graph
from .model.kv_scheme import KVScheme
from .model.weights import WeightSource
from .pipeline.advance import weights_of
from .pipeline.algorithm import Pass
from .pipeline.block_pass import BlockPass
from .rates import measured_rates
from .recipe import Recipe
from .recipe_words import check_head, check_named, check_requantized
from .text.probe_text import TEXTS, TOKENS

_START = 5.0  # seconds until torch and transformers are there


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


@dataclass(frozen=True)
class Plan:
    """What :func:`plan` predicts. Bytes, and seconds at this machine's measured rates.

    ``stored`` are the types that the weights come in, by their safetensors names; all are computed with in
    float32. ``probe_tokens`` are what each step is measured on, ``probe_seconds`` that part of the time.
    ``notes`` say what was chosen for the model, such as its groups, and whether the machine is busy.
    """

    model: str
    model_type: str
    blocks: int
    stored: str = ""
    steps: list[StepPlan] = field(default_factory=list)
    calibration_tokens: int = 0
    checkpoint_bytes: int = 0
    result_bytes: int = 0
    bundle_bytes: int = 0
    peak_memory: int = 0
    disk: int = 0
    seconds: float = 0.0
    probe_tokens: int = 0
    probe_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON for ``--dry-run --json``."""
        return asdict(self)


def _step_plans(source: WeightSource, recipe: Recipe) -> tuple[list[StepPlan], Anatomy, dict[str, float]]:
    """The steps, what they leave of the model, and the bits of a weight of each linear in a bundle."""
    plans, anatomy = [], source.anatomy
    bits = {
        one.name: bits_in_bundle(source.schemes[one.name], one.in_features)
        for one in anatomy.linears()
        if one.name in source.schemes
    }
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
            plans.append(_on_tables(source, name, label, after_it))
        else:
            plans.append(StepPlan(name, label, len(selected), sum(map(weights_of, selected)), before, after))
        anatomy = after_it
    return plans, anatomy, bits


def _on_tables(source: WeightSource, name: str, label: str, left: Anatomy) -> StepPlan:
    """A pass on embedding and head, which keeps their type and ``left.vocab_size`` rows."""
    anatomy = source.anatomy
    tables = [anatomy.embedding, *([anatomy.head] if anatomy.head and not anatomy.tied else [])]
    stored = sum(source.stored_bytes(f"{table}.weight") for table in tables)
    weights = len(tables) * anatomy.vocab_size * anatomy.hidden_size
    return StepPlan(name, label, 0, weights, stored, stored * left.vocab_size // anatomy.vocab_size)


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


def plan(
    source: WeightSource,
    recipe: Recipe,
    *,
    name: str,
    samples: int,
    length: int,
    batch_size: int,
    requantize: bool = False,
    rounded: str = "",
) -> Plan:
    """The plan for ``recipe`` on ``source``; checks that every group divides and every target exists.
    ``requantize``: what the model comes quantized with may be rounded again. ``rounded``: what all of its
    layers were dequantized from, where ``source`` does not say.

    Raises:
        ShapeError: a group that does not divide.
        CheckpointError, ShapeError, UnknownName: what no graph could hold afterwards.
        RecipeError: targets that match nothing, layers that are quantized twice, a cache that the model lacks
            or that would go stale, or a pass that does not know such models.
    """
    check_kind(source.anatomy, recipe)
    require_graph(source.anatomy)
    check_cache(source.anatomy, source.kv_scheme, recipe)
    steps, left, bits = _step_plans(source, recipe)
    check_head(left, recipe)
    check_shapes(source.anatomy, recipe)
    again = check_requantized(source, recipe, again=requantize, everywhere=bool(rounded))
    tokens = samples * length if recipe.calibrated else 0
    checkpoint = sum(source.reader.nbytes(tensor) for tensor in source.reader.shapes)
    added = [step.added_bytes(source.anatomy) for _, step in recipe.steps]
    less = [step.bytes_before - step.bytes_after for step in steps]
    sizes = [checkpoint + more for more in accumulate(map(sub, added, less))]
    at_once, rates = min(batch_size, samples) * length, measured_rates()
    return Plan(
        model=name,
        model_type=source.anatomy.model_type,
        blocks=len(source.anatomy.blocks),
        stored=", ".join(sorted(set(source.reader.dtypes.values()))),
        steps=steps,
        calibration_tokens=tokens,
        checkpoint_bytes=checkpoint,
        result_bytes=sizes[-1],
        bundle_bytes=bundle_bytes(source, left, bits, recipe.tables, sum(added)),
        peak_memory=memory_of(source, recipe, samples, length, batch_size),
        disk=predict_disk(source, recipe, tokens, sizes),
        seconds=_START
        + (checkpoint + 3 * sizes[-1]) / rates.hashed
        + seconds_of(source, recipe, samples, length, at_once, rates),
        probe_tokens=len(TEXTS) * TOKENS,
        probe_seconds=rates.seconds(probe_work(source, recipe)),
        notes=(*recipe.notes, *came_from(source, rounded), *again, *rates.notes),
    )


def came_from(source: WeightSource, rounded: str) -> tuple[str, ...]:
    """What the plan says of a model that is quantized already: ``from 4 bits (GPTQ, groups of 128)``."""
    coded, found = source.reader.coded, [f"from {rounded}"] if rounded else []
    if coded.described:
        found.append(f"from {coded.described}: {len(coded.by_module)} layers")
    own = [scheme for name, scheme in source.schemes.items() if name not in coded.by_module]
    for scheme, count in Counter(own).items():
        found.append(f"from {scheme.bits} bits ({scheme.name}): {count} layers")
    return tuple(found)


def memory_of(source: WeightSource, recipe: Recipe, samples: int, length: int, batch_size: int) -> int:
    """Bytes of memory that ``recipe`` needs at its peak, the libraries included."""
    tokens = samples * length if recipe.calibrated else 0
    at_once = min(batch_size, samples) * length
    return predict_memory(source, recipe, at_once, tokens, length, max(resident(), LIBRARIES))


def check_shapes(anatomy: Anatomy, recipe: Recipe) -> None:
    """Refuse groups that do not divide.

    Raises:
        ShapeError: names the layers and the group sizes that would fit.
        RecipeError: a pass that cannot make a model of these shapes smaller as asked.
    """
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

    Raises:
        RecipeError: names the pass.
    """
    for name, step in recipe.steps:
        if anatomy.has_experts and not step.knows_experts:
            raise RecipeError(
                f"pass {name} does not work on a mixture of experts as asked: {anatomy.model_type} is one",
                fix="these do: rtn, hqq, prune, kv_cache, experts, layers without repair, and without "
                "correction or sequential gptq, sparsegpt and alps",
            )
        if anatomy.has_latents and (not step.knows_experts or step.kv_scheme is not None):
            raise RecipeError(
                f"pass {name} does not work on latent attention as asked: {anatomy.model_type} has it",
                fix="these do: rtn, hqq, prune, layers without repair, and without correction or sequential "
                "gptq, sparsegpt and alps",
            )
        scheme = step.weight_scheme
        if anatomy.has_experts and scheme is not None and scheme.format != "int":
            raise RecipeError(
                f"pass {name}: {scheme.name} is not for a mixture of experts",
                why="transformers reads experts in such numbers wrongly, and nothing else was tried",
                fix="take integers: W4A16 or W8A8",
            )
        if not anatomy.attends and not step.knows_states:
            raise RecipeError(
                f"pass {name} does not work on a {anatomy.model_type}: some of its blocks have no attention",
                fix="these do: rtn, hqq, gptq, awq, smoothquant, autoround, prune, sparsegpt, alps, "
                "kv_cache, embedding, layers, and block_qat without fisher",
            )
        if anatomy.kind == "encoder_decoder" and not step.knows_encoder_decoders:
            raise RecipeError(
                f"pass {name} does not work on encoder–decoders yet: {anatomy.model_type} is one",
                fix="these do: rtn, hqq, gptq, awq, smoothquant, autoround, prune, sparsegpt, alps, "
                "block_qat without fisher, and distill with its losses of sequences (not losses: outputs)",
            )
        if anatomy.hearing is not None and not isinstance(step, BlockPass):
            raise RecipeError(
                f"pass {name} does not work on models that hear yet: {anatomy.model_type} is one",
                fix="these do: rtn, hqq, gptq, awq, smoothquant, autoround, prune, sparsegpt, alps, and "
                "block_qat without fisher",
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
