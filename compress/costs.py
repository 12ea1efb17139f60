"""What a recipe costs on a model, before any of it runs: peak memory, and time at measured rates.

Peak memory follows the sweep: the interpreter with its libraries, the block's weights in float32 and its
codes, the statistics of its inputs, and the larger of two working sets, the forward pass of one batch or what
a pass says it needs for its largest group of layers.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate

from .measure.fisher import LOGITS_AT_ONCE
from .model.anatomy import Anatomy
from .model.block_anatomy import BlockAnatomy
from .model.checkpoint.shard_writer import ONE_FILE
from .model.weights import WeightSource
from .pipeline.advance import FORWARD, LOGITS, Work, block_weights, block_work, weights_of
from .pipeline.algorithm import Pass
from .pipeline.block_pass import PREPARED_AT_ONCE, BlockPass
from .pipeline.chain import stages_of
from .pipeline.damage_probe import PROBED_AT_ONCE
from .pipeline.model_pass import ModelPass, Workload
from .pipeline.stage import Steps
from .pipeline.statistics import STATISTIC_BYTES
from .rates import Rates
from .recipe import Recipe
from .text.micro_batches import MEASURED_AT_ONCE, MEASURED_TOKENS
from .text.probe_text import TEXTS, TOKENS

FLOAT = 4
# Resident bytes of the interpreter with torch and transformers loaded; `resident` measures more where it is.
LIBRARIES = 430 << 20
# What calibration adds to them: the tokenizer, the text, and the workspace of matrix products.
CALIBRATION = 70 << 20
# What measuring the steps adds where no text is calibrated on: the tokenizer and the same workspace.
PROBE = 50 << 20
# How many times the live activations of a forward pass wait for the backward pass of a block.
_KEPT = 4
# The same of a backward sweep, where no weight learns: 1.12 with SmolLM2.
_KEPT_ON_THE_WAY = 1.25
# Weights that have a scale together where the plan does not know.
_GROUP = 64
# How many copies of the logits of some tokens a loss or a comparison takes.
_LOGITS = 5


def block_bytes(block: BlockAnatomy) -> int:
    """A block in float32."""
    return sum(map(weights_of, block.linears())) * FLOAT


def _swept(steps: Steps) -> list[BlockPass]:
    """The block passes, those that a model pass ends with included."""
    found: list[BlockPass] = []
    for _, step in steps:
        found += (
            [step]
            if isinstance(step, BlockPass)
            else step.swept_with()
            if isinstance(step, ModelPass)
            else []
        )
    return found


def _statistics_bytes(block: BlockAnatomy, passes: Sequence[BlockPass]) -> int:
    """Statistics of the pass that asks for most; each is forgotten before the next collects."""
    return max((_statistics_of(block, step) for step in passes), default=0)


def _statistics_of(block: BlockAnatomy, step: BlockPass) -> int:
    groups = [group for group in block.inputs() if any(step.selects(linear) for linear in group)]
    asked = sum(STATISTIC_BYTES[need](group[0].in_features) for group in groups for need in step.needs)
    return asked + step.collected_bytes(block)


def _pass_bytes(block: BlockAnatomy, passes: Sequence[BlockPass]) -> int:
    """Working memory of the most demanding pass on the group of layers where it is largest."""
    work = (
        step.working_bytes(layers)
        for step in passes
        for group in ([tuple(block.linears())] if step.learns else block.inputs())
        if (layers := [linear for linear in group if step.selects(linear)])
    )
    return max(work, default=0)


def _forward_bytes(source: WeightSource, block: BlockAnatomy, tokens: int) -> int:
    """Live activations of one batch of ``tokens`` tokens in a block."""
    mlp = block.feed_forward
    peak = max(block.mixer.live, 0 if mlp is None else 3 * mlp.up.out_features)
    states = 4 if block.cross is None else 6  # the encoder's, and those behind its norm
    return tokens * FLOAT * (states * source.anatomy.hidden_size + peak)


def predict_memory(
    source: WeightSource,
    recipe: Recipe,
    batch_tokens: int,
    tokens: int,
    length: int,
    resident: int = LIBRARIES,
) -> int:
    """Peak resident bytes of the sweep with so many ``tokens`` of calibration text, in sequences of
    ``length`` and ``batch_tokens`` at once; ``resident`` is what the process holds before it starts.
    """
    anatomy = source.anatomy
    peaks, passes = [_probe_bytes(source, recipe)], _swept(recipe.steps)
    bits = [bits for _, step in recipe.steps if (bits := step.bits_per_weight(1024)) is not None]
    codes = 1 + max(bits) / 8 if bits else 0.0  # of a weight: a byte, and what it becomes on disk
    compares = any(step.compares for step in passes)
    learning = [step for step in passes if step.learns]
    together = length if all(step.alone for step in learning) else batch_tokens
    for block in anatomy.blocks:
        weights = block_bytes(block)
        copies = weights * (2 if compares else 1) + int(codes * weights / FLOAT)
        held = copies + _statistics_bytes(block, passes)
        forward = _forward_bytes(source, block, max(batch_tokens * recipe.calibrated, TOKENS))
        waiting = _KEPT * _forward_bytes(source, block, together) if learning else 0
        peaks.append(held + max(forward, waiting + _pass_bytes(block, passes)))
    peaks += [_backward_bytes(source, at_once, held) for at_once, held in _backward_sweeps(source, recipe)]
    whole = sum(block_bytes(block) for block in anatomy.blocks)
    for step, scales in _model_passes(source, recipe):
        # What is added is held beside what it was made from and what it becomes on disk.
        work = max(step.working_bytes(whole), step.sweep_bytes(source, tokens, scales))
        peaks.append(work + 3 * step.added_bytes(anatomy))
    return resident + (CALIBRATION if recipe.calibrated else PROBE) + max(peaks)


def _model_passes(source: WeightSource, recipe: Recipe) -> Iterator[tuple[ModelPass, int]]:
    """Each of them, and how many scales the codes have that it finds."""
    anatomy = source.anatomy
    scales = {
        linear.name: linear.out_features * source.schemes[linear.name].groups(linear.in_features)
        for linear in anatomy.linears()
        if linear.name in source.schemes
    }
    for _, step in recipe.steps:
        if isinstance(step, ModelPass):
            yield step, sum(scales.values())
        scales |= _scales_after(step, anatomy)


def _scales_after(step: Pass, anatomy: Anatomy) -> dict[str, int]:
    """How many scales each linear has that ``step`` quantizes."""
    if step.bits_per_weight(1024) is None:
        return {}
    schemes = {linear: step.scheme_of(linear) for linear in step.selected(anatomy)}
    return {
        linear.name: linear.out_features
        * (linear.in_features // _GROUP if scheme is None else scheme.groups(linear.in_features))
        for linear, scheme in schemes.items()
    }


def _backward_sweeps(source: WeightSource, recipe: Recipe) -> Iterator[tuple[int, int]]:
    """Of each backward sweep the tokens of a micro-batch, and the most that a block's weights and its
    observers hold.
    """
    anatomy = source.anatomy
    for _, step in recipe.steps:
        if isinstance(step, ModelPass) and step.measures:
            held = (block_bytes(block) + step.observers_bytes(block) for block in anatomy.blocks)
            yield MEASURED_AT_ONCE, max(held)
        elif isinstance(step, BlockPass) and step.prepared_tokens:
            # Three times: what is added up, what it becomes, and what is written.
            held = (block_bytes(block) for block in anatomy.blocks)
            yield PREPARED_AT_ONCE, max(held) + 3 * step.prepared_bytes(anatomy)


def _backward_bytes(source: WeightSource, at_once: int, held: int) -> int:
    """The larger of a block on the way back, and the head."""
    forward = max(_forward_bytes(source, block, at_once) for block in source.anatomy.blocks)
    return max(held + int(_KEPT_ON_THE_WAY * forward), _head_bytes(source, LOGITS_AT_ONCE))


def _probe_bytes(source: WeightSource, recipe: Recipe) -> int:
    """What makes logits after a step: the head, and the original's beside it where a pass may change it."""
    both = any(isinstance(step, ModelPass) for _, step in recipe.steps)
    return _head_bytes(source, PROBED_AT_ONCE) + both * source.outer_bytes()


def probe_work(source: WeightSource, recipe: Recipe) -> Work:
    """What it takes to measure the original and what each step leaves of it; nothing is measured any more
    once a step changes the vocabulary.
    """
    tokens, steps, anatomy = len(TEXTS) * TOKENS, 0, source.anatomy
    for _, step in recipe.steps:
        anatomy = step.anatomy_after(anatomy)
        steps += anatomy.vocab_size == source.anatomy.vocab_size
    if not steps:
        return Work()
    whole = sum(map(block_weights, source.anatomy.blocks))
    return Work(tokens * (FORWARD * whole * (1 + steps) + 2 * LOGITS * _head_weights(source) * steps))


def _head_weights(source: WeightSource) -> int:
    anatomy = source.anatomy
    return 0 if anatomy.head is None else anatomy.vocab_size * anatomy.hidden_size


def _head_bytes(source: WeightSource, at_once: int) -> int:
    """All that is outside the blocks, and the logits of so many tokens."""
    logits = 0 if source.anatomy.head is None else _LOGITS * at_once * source.anatomy.vocab_size * FLOAT
    return source.outer_bytes() + logits


def predict_disk(source: WeightSource, recipe: Recipe, tokens: int, sizes: Sequence[int]) -> int:
    """The most bytes on disk, where each step leaves a model of so many as ``sizes`` has: what a stage makes,
    its parts where these do not become its shards, and the checkpoint of the stage before; and the hidden
    states that wait, of a backward sweep those of every block. What a pass keeps that needs the whole model
    is mostly smaller when its result is written.
    """
    ends = [sizes[count - 1] for count in accumulate(map(len, stages_of(recipe.steps)))]
    most = max(
        before + made * (2 if made <= ONE_FILE else 1) for before, made in zip((0, *ends), ends, strict=False)
    )
    stacks = 2 if source.anatomy.kind == "encoder_decoder" else 1
    state, count = source.anatomy.hidden_size * FLOAT * stacks, len(source.anatomy.blocks)
    measured = [
        MEASURED_TOKENS + step.looked_tokens if isinstance(step, ModelPass) else step.prepared_tokens or 0
        for _, step in recipe.steps
        if isinstance(step, BlockPass) or (isinstance(step, ModelPass) and step.measures)
    ]
    waiting = max((min(tokens, one) * (count + 3) for one in measured), default=0)
    probed = len(TEXTS) * TOKENS * (2 + len(recipe.steps))
    passes, anatomy = list(_model_passes(source, recipe)), source.anatomy
    working = max((step.disk_bytes(anatomy, tokens, scales) for step, scales in passes), default=0)
    at_end = max((step.disk_bytes_at_end(anatomy, tokens, scales) for step, scales in passes), default=0)
    held = max(most + at_end, max((0, *ends[:-1])) + working)
    return held + state * (probed + max(2 * tokens, waiting))


def work_of(source: WeightSource, recipe: Recipe, samples: int, length: int, batch_tokens: int) -> Work:
    """The work of the whole recipe but for what a pass bounds by the clock: what each pass says of its own,
    and the forward passes that make the inputs of the next block.
    """
    total = probe_work(source, recipe)
    tokens = samples * length if recipe.calibrated else 0
    whole = sum(map(block_weights, source.anatomy.blocks))
    for stage in stages_of(recipe.steps):
        steps = _swept(stage)
        for block in source.anatomy.blocks:
            total += block_work(block, steps, tokens, samples, batch_tokens)
        prepared = max((min(step.prepared_tokens or 0, tokens) for step in steps), default=0)
        total += Work(4.0 * whole * prepared)
    return total


def seconds_of(
    source: WeightSource, recipe: Recipe, samples: int, length: int, batch_tokens: int, rates: Rates
) -> float:
    """How long the whole recipe takes at ``rates``; of a pass whose time is bounded what it may take."""
    total = rates.seconds(work_of(source, recipe, samples, length, batch_tokens))
    whole, head = sum(map(block_weights, source.anatomy.blocks)), _head_weights(source)
    tokens = samples * length if recipe.calibrated else 0
    for only, scales in _model_passes(source, recipe):
        seen = only.seen(tokens, samples)
        bound = math.inf if only.max_seconds is None else only.max_seconds
        load = Workload(source.anatomy, seen, scales, FORWARD * whole, LOGITS * head)
        total += min(rates.seconds(only.work(load)), bound)
    return total
