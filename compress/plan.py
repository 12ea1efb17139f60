"""The plan of a compression: what it does and will cost in memory, disk and time, before it all runs."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from operator import sub
from typing import Any

from ..errors import RecipeError
from ..runtime.session.needs import resident
from .bundle_size import bits_in_bundle, bundle_bytes, experts_in_float
from .costs import LIBRARIES, predict_disk, predict_memory, probe_work, seconds_of
from .model.anatomy import Anatomy
from .model.block_anatomy import Linear
from .model.graph_limits import require_graph
from .model.weights import WeightSource
from .model_checks import (
    check_cache,
    check_gguf_types,
    check_head,
    check_kind,
    check_named,
    check_requantized,
    check_shapes,
)
from .pipeline.advance import Work, weights_of
from .pipeline.algorithm import Pass
from .rates import measured_rates
from .recipe import Recipe
from .text.probe_text import TEXTS, TOKENS

_TEXT = 0.5  # of the start also reading text and making tokens of it


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
    """
    check_kind(source.anatomy, recipe)
    require_graph(source.anatomy)
    check_cache(source.anatomy, source.kv_scheme, recipe)
    steps, left, bits = step_plans(source, recipe)
    check_head(left, recipe)
    check_shapes(source.anatomy, recipe)
    check_gguf_types(source, recipe, left)
    again = check_requantized(source, recipe, again=requantize, everywhere=bool(rounded))
    tokens = samples * length if recipe.calibrated else 0
    checkpoint = sum(source.reader.nbytes(tensor) for tensor in source.reader.shapes)
    added = [step.added_bytes(source.anatomy) for _, step in recipe.steps]
    less = [step.bytes_before - step.bytes_after for step in steps]
    # A matrix that is added is stored as the embedding is.
    itemsize = source.stored_type(f"{source.anatomy.embedding}.weight").itemsize
    stored = [more * itemsize // 4 for more in added]
    sizes = [checkpoint + more for more in accumulate(map(sub, stored, less))]
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
        seconds=rates.start * (1 + _TEXT * recipe.calibrated)
        + rates.seconds(Work(stored=checkpoint + 3 * sizes[-1]))
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
