"""The plan of a compression: what it does and will cost in memory, disk and time, before it all runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from operator import sub
from typing import Any

from ..runtime.session.needs import resident
from .bundle_size import bundle_bytes
from .costs import LIBRARIES, predict_disk, predict_memory, probe_work, seconds_of
from .gguf_check import check_gguf_types
from .model.graph_limits import require_graph
from .model.weights import WeightSource
from .model_checks import check_cache, check_kind, check_shapes
from .pipeline.advance import Work
from .rates import measured_rates
from .recipe import Recipe
from .recipe_words import check_head, check_requantized
from .step_plan import StepPlan, step_plans
from .text.probe_text import TEXTS, TOKENS

_TEXT = 0.5  # of the start also reading text and making tokens of it


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
