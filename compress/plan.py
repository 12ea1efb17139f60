"""The plan of a compression: what each step does and what it will cost in memory, disk and time, before any
of it runs.

Peak memory follows the sweep: the interpreter with its libraries, the block's weights in float32 and its
codes, the statistics of its inputs, and the larger of two working sets, the forward pass of one batch or what
a pass says it needs for its largest group of layers.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import RecipeError
from .model.block_anatomy import BlockAnatomy, Linear
from .model.weights import WeightSource
from .pipeline.algorithm import FORWARD, PREPARED_AT_ONCE, BlockPass, ModelPass, Pass, Selective
from .pipeline.statistics import STATISTIC_BYTES
from .recipe import Recipe
from .shapes import check_cache, check_kind, check_shapes

FLOAT = 4
# Resident bytes of the interpreter with torch and transformers loaded; `resident` measures more where it is.
LIBRARIES = 350 << 20
# What calibration adds to them: the tokenizer, the text, and the workspace of matrix products.
CALIBRATION = 70 << 20
# How many times the live activations of a forward pass wait for the backward pass of a block.
_KEPT = 4
# The same of a backward pass through all blocks, where no weight learns: 1.12 with SmolLM2.
_KEPT_ON_THE_WAY = 1.25


@dataclass(frozen=True)
class StepPlan:
    """One pass: how many layers and weights it works on, and their bytes before and after."""

    step: str
    scheme: str
    layers: int
    weights: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Plan:
    """What :func:`plan` predicts. Bytes, and seconds at this machine's measured rate.

    ``stored`` are the types that the weights come in, by their safetensors names; all are computed with in
    float32.
    """

    model: str
    model_type: str
    blocks: int
    stored: str = ""
    steps: list[StepPlan] = field(default_factory=list)
    calibration_tokens: int = 0
    checkpoint_bytes: int = 0
    result_bytes: int = 0
    peak_memory: int = 0
    disk: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON for ``--dry-run --json``."""
        return asdict(self)


def _step_plans(source: WeightSource, recipe: Recipe) -> list[StepPlan]:
    plans, anatomy = [], source.anatomy
    stored_bytes = {one.name: source.stored_bytes(f"{one.name}.weight") for one in anatomy.all_linears()}
    for name, step in recipe.steps:
        selected = step.selected(anatomy)
        if not selected:
            roles = sorted({linear.role for linear in source.anatomy.linears()})
            raise RecipeError(
                f"pass {name}: its targets {_targets(step)} match no layer of this model",
                fix=f"targets are globs on names such as {next(source.anatomy.linears()).name}, "
                f"or roles: {', '.join(roles)}",
            )
        left = {linear.name: linear for linear in step.anatomy_after(anatomy).all_linears()}
        before = sum(stored_bytes[linear.name] for linear in selected)
        for linear in selected:
            stored_bytes[linear.name] = _bytes_after(
                step, linear, left.get(linear.name), stored_bytes[linear.name]
            )
        after = sum(stored_bytes[linear.name] for linear in selected)
        scheme = step.weight_scheme
        label = scheme.name if scheme else step.label
        plans.append(StepPlan(name, label, len(selected), sum(map(_weights, selected)), before, after))
        anatomy = step.anatomy_after(anatomy)
    return plans


def _targets(step: Pass) -> list[str]:
    return list(step.targets) if isinstance(step, Selective) else ["*"]


def _bytes_after(step: Pass, linear: Linear, left: Linear | None, stored: int) -> int:
    """Bytes of ``linear`` when the pass has made it what is ``left`` of it."""
    if left is None:
        return 0
    bits = step.bits_per_weight(left.in_features)
    if bits is None:
        return stored * _weights(left) // _weights(linear)
    return int(_weights(left) * bits / 8)


def _weights(linear: Linear) -> int:
    return linear.out_features * linear.in_features


def _block_bytes(block: BlockAnatomy) -> int:
    return sum(_weights(linear) for linear in (*block.linears(), *block.expert_linears())) * FLOAT


def _block_passes(recipe: Recipe) -> list[BlockPass]:
    return [step for _, step in recipe.steps if isinstance(step, BlockPass)]


def _statistics_bytes(block: BlockAnatomy, recipe: Recipe) -> int:
    """Statistics of the pass that asks for most; each is forgotten before the next collects."""
    return max((_statistics_of(block, step) for step in _block_passes(recipe)), default=0)


def _statistics_of(block: BlockAnatomy, step: BlockPass) -> int:
    groups = [group for group in block.inputs() if any(step.selects(linear) for linear in group)]
    return sum(STATISTIC_BYTES[need](group[0].in_features) for group in groups for need in step.needs)


def _pass_bytes(block: BlockAnatomy, recipe: Recipe) -> int:
    """Working memory of the most demanding pass on the group of layers where it is largest."""
    work = (
        step.working_bytes(layers)
        for step in _block_passes(recipe)
        for group in ([tuple(block.linears())] if step.learns else block.inputs())
        if (layers := [linear for linear in group if step.selects(linear)])
    )
    return max(work, default=0)


def _forward_bytes(source: WeightSource, block: BlockAnatomy, tokens: int) -> int:
    """Live activations of one batch of ``tokens`` tokens in a block."""
    attention, mlp = block.attention, block.mlp
    heads = attention.heads * attention.head_dim
    peak = max(3 * heads, 3 * mlp.up.out_features)
    return tokens * FLOAT * (4 * source.anatomy.hidden_size + peak)


def predict_memory(
    source: WeightSource, recipe: Recipe, batch_tokens: int, tokens: int, resident: int = LIBRARIES
) -> int:
    """Peak resident bytes of the sweep with so many ``tokens`` of calibration text, ``batch_tokens`` at once;
    ``resident`` is what the process holds before it starts.
    """
    anatomy = source.anatomy
    peaks = [source.outer_bytes()]
    codes = any(step.bits_per_weight(1024) is not None for _, step in recipe.steps)
    compares = any(step.compares for step in _block_passes(recipe))
    kept = _KEPT if any(step.learns for step in _block_passes(recipe)) else 0
    for block in anatomy.blocks:
        weights = _block_bytes(block)
        copies = weights * (2 if compares else 1) + (weights // FLOAT if codes else 0)
        held = copies + _statistics_bytes(block, recipe)
        forward = _forward_bytes(source, block, batch_tokens) if recipe.calibrated else 0
        peaks.append(held + max(forward, kept * forward + _pass_bytes(block, recipe)))
    whole = sum(_block_bytes(block) for block in anatomy.blocks)
    preparing = [step for step in _block_passes(recipe) if step.prepared_tokens]
    if preparing:
        found = max(step.prepared_bytes(anatomy) for step in preparing)
        waiting = _KEPT_ON_THE_WAY * sum(
            _forward_bytes(source, block, PREPARED_AT_ONCE) for block in anatomy.blocks
        )
        # Twice, where it is added up and where it goes to.
        peaks.append(whole + source.outer_bytes() + 2 * found + int(waiting))
    for _, step in recipe.steps:
        if isinstance(step, ModelPass):
            # What is added is held beside what it was made from and what it becomes on disk.
            work = max(step.working_bytes(whole), step.sweep_bytes(anatomy, tokens))
            peaks.append(work + 3 * step.added_bytes(anatomy))
    return resident + (CALIBRATION if recipe.calibrated else 0) + max(peaks)


def multiplications(
    source: WeightSource,
    recipe: Recipe,
    samples: int,
    length: int,
    batch_tokens: int,
    rate: float = math.inf,
) -> float:
    """Multiply-adds of the whole recipe: what each pass says of its own, and the forward passes that make
    the inputs of the next block; of a pass whose time is bounded what it can do at ``rate``, in a second.
    """
    total, steps = 0.0, _block_passes(recipe)
    tokens = samples * length if recipe.calibrated else 0
    read = max((step.seen(tokens, samples) for step in steps if step.calibrated), default=0)
    forward = FORWARD * read * (1 + any(step.compares for step in steps))
    for block in source.anatomy.blocks:
        total += forward * _block_bytes(block) / FLOAT
        for step in steps:
            groups = [[linear for linear in group if step.selects(linear)] for group in block.inputs()]
            wanted = [group for group in groups if group]
            total += step.multiplications(wanted, step.seen(tokens, samples), batch_tokens)
    whole = sum(_block_bytes(block) for block in source.anatomy.blocks) // FLOAT
    total += 3 * whole * max((min(step.prepared_tokens or 0, tokens) for step in steps), default=0)
    for only in (step for _, step in recipe.steps if isinstance(step, ModelPass)):
        bound = math.inf if only.max_seconds is None else only.max_seconds * rate
        total += min(only.multiplications(whole, only.seen(tokens, samples)), bound)
    return total


def gemm_rate() -> float:
    """Multiply-adds per second of a float32 matrix product here, measured for a moment."""
    import torch

    left, right = torch.ones(512, 512), torch.ones(512, 512)
    left @ right
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 0.1:
        left @ right
        count += 1
    return count * 512**3 / (time.perf_counter() - start)


def resident() -> int:
    """Resident bytes of this process now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def plan(
    source: WeightSource, recipe: Recipe, *, name: str, samples: int, length: int, batch_size: int
) -> Plan:
    """The plan for ``recipe`` on ``source``; checks that every group divides and every target exists.

    Raises:
        ShapeError: a group that does not divide.
        RecipeError: targets that match nothing, a cache that the model lacks or that would go stale, or a
            pass that does not know such models.
    """
    check_kind(source.anatomy, recipe)
    check_cache(source.anatomy, source.kv_scheme, recipe)
    steps = _step_plans(source, recipe)
    check_shapes(source.anatomy, recipe)
    tokens = samples * length if recipe.calibrated else 0
    checkpoint = sum(source.reader.nbytes(tensor) for tensor in source.reader.shapes)
    result = checkpoint - sum(step.bytes_before - step.bytes_after for step in steps)
    result += sum(step.added_bytes(source.anatomy) for _, step in recipe.steps)
    activations = 2 * tokens * source.anatomy.hidden_size * FLOAT
    at_once, rate = min(batch_size, samples) * length, gemm_rate()
    return Plan(
        model=name,
        model_type=source.anatomy.model_type,
        blocks=len(source.anatomy.blocks),
        stored=", ".join(sorted(set(source.reader.dtypes.values()))),
        steps=steps,
        calibration_tokens=tokens,
        checkpoint_bytes=checkpoint,
        result_bytes=result,
        peak_memory=predict_memory(source, recipe, at_once, tokens, max(resident(), LIBRARIES)),
        disk=2 * result + activations,
        seconds=10 + multiplications(source, recipe, samples, length, at_once, rate) / rate,
    )
