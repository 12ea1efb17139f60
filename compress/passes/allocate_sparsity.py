"""Sparsity where it hurts least: which fraction of each layer becomes zero, solved exactly under one budget.

What each layer loses at each fraction is measured by gradients on the whole model
(:mod:`edgepress.compress.measure.sensitivity`), in place of the outlier counts of Yin et al. 2023, "Outlier
Weighed Layerwise Sparsity", arXiv 2310.05175; the choice is a multiple-choice knapsack
(:mod:`edgepress.compress.solve.knapsack`). Then the pass that ``using`` names prunes so. The fractions are
kept in the manifest, and can be given to that pass again as its ``per_layer``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor

from ...errors import RecipeError
from ..measure.sensitivity import WeightLosses
from ..model.block_anatomy import BlockAnatomy, Linear
from ..pipeline.advance import Work
from ..pipeline.algorithm import ATTENDING, Fixed, float_bytes
from ..pipeline.block_pass import BlockPass, Selective
from ..pipeline.model_pass import ModelPass, Workload
from ..pipeline.pass_options import inner_pass
from ..pipeline.stage import MEASURED, Stage, StageResult
from ..pipeline.sweep import sweep_within
from ..solve.allocation import with_unseen
from ..solve.knapsack import choose
from ..text.micro_batches import MEASURED_TOKENS

# How far a layer's fraction may be from the whole's, and in which steps.
_SPREAD, _STEP = 0.2, 0.05


class AllocateSparsity(Selective, ModelPass):
    """Options of ``allocate_sparsity``."""

    works_on: ClassVar[frozenset[str]] = ATTENDING
    fixed: ClassVar[Mapping[str, Fixed]] = MEASURED | {
        "spread": Fixed(_SPREAD, "losses are measured near the whole's fraction, and add up there")
    }
    sparsity: float = Field(gt=0, lt=1, description="fraction of all weights together that become zero")
    using: dict[str, Any] = Field({"pass": "sparsegpt"}, description="the pass that prunes, with its options")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        self.pruner({}, ())
        return self

    def pruner(self, fractions: Mapping[str, float], targets: Sequence[str]) -> BlockPass:
        """The pass ``using`` with the fraction of each layer."""
        own = {
            "sparsity": self.sparsity,
            "per_layer": dict(fractions),
            "targets": tuple(targets),
            "ignore": (),
        }
        return inner_pass(self.using, "per_layer", **own, samples=self.samples)

    @property
    def fractions(self) -> list[float]:
        """What a layer's fraction may be."""
        steps = range(-round(_SPREAD / _STEP), round(_SPREAD / _STEP) + 1)
        found = (round(self.sparsity + step * _STEP, 6) for step in steps)
        return [fraction for fraction in found if 0 <= fraction < 1]

    @property
    def label(self) -> str:
        return f"{self.sparsity:.0%} sparse, by layer"

    @property
    def note(self) -> str | None:
        return self.pruner({}, ()).note

    @property
    def calibrated(self) -> bool:
        return True

    @property
    def measures(self) -> bool:
        return True

    def working_bytes(self, weights: int) -> int:
        """Blocks come one at a time."""
        return 0

    def swept_with(self) -> Sequence[BlockPass]:
        return (self.pruner({}, self.targets),)

    def observers_bytes(self, block: BlockAnatomy) -> int:
        """The losses of a block's weights, and the sorted ones of a layer with their order."""
        sizes = [float_bytes(linear) for linear in block.linears()]
        return sum(sizes) + 3 * max(sizes)

    def work(self, load: Workload) -> Work:
        """A backward sweep with the squares of the gradients; the pruning sweep is planned as such."""
        return Work(load.backward * min(load.tokens, MEASURED_TOKENS))

    def apply(self, stage: Stage) -> StageResult:
        """Measure, solve, prune."""
        linears = self.selected(stage.source.anatomy)
        quantized = [linear.name for linear in linears if linear.name in stage.source.schemes]
        if quantized:
            raise RecipeError(f"{quantized[0]} is quantized already", fix="prune before quantizing")
        measured, unseen = with_unseen(stage.source.anatomy.blocks, self._measured(stage, linears))
        costs = [measured[linear.name] for linear in linears]
        sizes = [
            [
                linear.out_features * linear.in_features - zeros(linear, fraction)
                for fraction in self.fractions
            ]
            for linear in linears
        ]
        total = sum(linear.out_features * linear.in_features for linear in linears)
        choice = choose(costs, sizes, total - int(self.sparsity * total))
        picked = zip(linears, choice.options, strict=True)
        fractions = {linear.name: self.fractions[option] for linear, option in picked}
        result = self._sweep(stage, fractions)
        result.details.update(
            {"shares": fractions, "sparsity": 1 - choice.size / total, "predicted": choice.cost}
        )
        if unseen:
            result.details["unseen_experts"] = unseen
        return result

    def _sweep(self, stage: Stage, fractions: Mapping[str, float]) -> StageResult:
        pruner = self.pruner(fractions, tuple(fractions))
        steps = [[(str(self.using["pass"]), pruner)]]
        return sweep_within(stage, steps, stage.source.schemes, fractions)

    def _measured(self, stage: Stage, linears: Sequence[Linear]) -> dict[str, list[float]]:
        """For each layer, the loss at each fraction: that of its least costly weights, added up."""
        counts = {linear.name: [zeros(linear, share) for share in self.fractions] for linear in linears}

        def measure(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, WeightLosses]:
            names = [linear.name for linear in block.linears() if linear.name in counts]
            return {name: WeightLosses(name, weight(name), counts[name]) for name in names}

        found = stage.measured("allocate_sparsity", measure)
        return {linear.name: found[linear.name].tolist() for linear in linears}


def zeros(linear: Linear, fraction: float) -> int:
    """How many weights of a layer a fraction is."""
    return round(fraction * linear.out_features * linear.in_features)


PASS = AllocateSparsity
