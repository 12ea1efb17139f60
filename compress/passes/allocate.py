"""Mixed precision: which layers get how many bits, solved exactly under a budget, then quantized so.

What each layer costs at each width is measured by gradients (:mod:`edgepress.compress.measure.sensitivity`),
rounded to nearest, or by GPTQ where that will quantize (:mod:`edgepress.compress.solve.gptq_losses`); the
choice is solved to optimality (:mod:`edgepress.compress.solve.allocation`).
Linears that read the same inputs get one scheme, since fast runtimes keep them as one matrix: of experts gate
and up of each, and down of each. Costs and plan
are kept in the manifest: the costs can be given again for another budget, and the plan, edited or as it is,
in its place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from ...errors import RecipeError, ShapeError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy, Linear
from ..numbers.grid import grids_tried
from ..numbers.scheme import Scheme, SchemeOption
from ..pipeline.advance import FORWARD, Work, weights_of
from ..pipeline.algorithm import ATTENDING, Fixed, float_bytes
from ..pipeline.block_pass import BlockPass, Selective
from ..pipeline.model_pass import ModelPass, Workload
from ..pipeline.pass_options import inner_pass
from ..pipeline.stage import MEASURED, Stage, StageResult
from ..pipeline.sweep import sweep_within
from ..solve.allocation import (
    Allocation,
    Costs,
    costs_with_unseen,
    read_allocation,
    read_costs,
    within_budget,
)
from ..solve.gptq_losses import LOOKED_TOKENS, costs_as_rounded, gptq_codes_work, gptq_observers_bytes
from ..solve.scheme_costs import divides
from ..text.micro_batches import MEASURED_TOKENS

# What a token that is looked at takes, in forward passes: two, and about as much as one for the Grams.
_LOOKING = 3
_DEFAULT = tuple(Scheme.parse(f"W{bits}A16-g64") for bits in (2, 3, 4, 8))


class Allocate(Selective, ModelPass):
    """Options of ``allocate``."""

    works_on: ClassVar[frozenset[str]] = ATTENDING
    text: ClassVar[str] = "to measure"
    fixed: ClassVar[Mapping[str, Fixed]] = MEASURED | {
        "packed": Fixed(True, "fast runtimes keep linears that read the same inputs as one matrix")
    }
    bits: float | None = Field(None, gt=0, description="budget: stored bits per weight, scales included")
    plan: Annotated[Allocation | None, BeforeValidator(read_allocation)] = Field(
        None,
        description="scheme of each layer in place of a budget: a mapping, a YAML file, or a checkpoint",
    )
    costs: Annotated[Costs | None, BeforeValidator(read_costs)] = Field(
        None,
        description="sensitivities measured before: a mapping, or a checkpoint that this pass made",
    )
    schemes: tuple[SchemeOption, ...] = Field(
        _DEFAULT, min_length=1, description="schemes that a layer may get"
    )
    using: dict[str, Any] = Field({"pass": "gptq"}, description="the pass that quantizes, with its options")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.bits is None) == (self.plan is None):
            raise ValueError("give either bits, a budget, or a plan")
        if self.plan == {}:
            raise ValueError("the plan names no layer")
        for name in dict.fromkeys((self.plan or {}).values()):
            Scheme.parse(name)
        least = min(scheme.bits_per_weight(scheme.group_size or 4096) for scheme in self.schemes)
        if self.bits is not None and self.bits < least:
            raise ValueError(f"{self.bits} bits are below the {least:g} of the smallest scheme")
        self.quantizer(self.schemes[0], ())
        return self

    def quantizer(self, scheme: Scheme, targets: Sequence[str]) -> BlockPass:
        """The pass ``using`` with a scheme and targets of its own."""
        return inner_pass(
            self.using, "scheme", scheme=scheme, targets=tuple(targets), ignore=(), samples=self.samples
        )

    @property
    def label(self) -> str:
        return f"{self.bits:g} bits" if self.bits is not None else "plan"

    @property
    def measures(self) -> bool:
        """Whether the pass has to find out what a layer costs."""
        return self.plan is None and self.costs is None

    @property
    def calibrated(self) -> bool:
        return self.measures or self.quantizer(self.schemes[0], ()).calibrated

    @property
    def inputs_multiple(self) -> int:
        return min(scheme.group_size or 1 for scheme in self.schemes) if self.plan is None else 1

    def selects(self, linear: Linear) -> bool:
        """Of a plan the layers that it names."""
        return super().selects(linear) if self.plan is None else linear.name in self.plan

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        """As it was; a plan has to fit it."""
        if self.plan is not None:
            self._checked(anatomy)
        return anatomy

    def scheme_of(self, linear: Linear) -> Scheme | None:
        """What the plan says; before a budget is shared out, nobody knows."""
        name = (self.plan or {}).get(linear.name)
        return None if name is None else Scheme.parse(name)

    def quantizes(self, linear: Linear) -> bool:
        return True

    def bits_per_weight(self, in_features: int) -> float | None:
        """The budget, or the most that the plan gives a layer."""
        if self.plan is None:
            return self.bits
        planned = [Scheme.parse(name) for name in set(self.plan.values())]
        return max(scheme.bits_per_weight(in_features) for scheme in planned)

    def working_bytes(self, weights: int) -> int:
        """Blocks come one at a time."""
        return 0

    def swept_with(self) -> Sequence[BlockPass]:
        return (self.quantizer(self.schemes[0], self.targets),)

    @property
    def damping(self) -> float | None:
        """Of GPTQ, by whose codes the pass measures; None where it rounds to nearest, or measures nothing."""
        return self.quantizer(self.schemes[0], ()).recursion_damping if self.measures else None

    @property
    def looked_tokens(self) -> int:
        return 0 if self.damping is None else LOOKED_TOKENS

    def observers_bytes(self, block: BlockAnatomy) -> int:
        """The codes of a block at each width, and what the change of a layer takes, or GPTQ."""
        sizes = [float_bytes(linear) for linear in block.linears()]
        if self.damping is not None:
            return gptq_observers_bytes(list(block.linears()), len(self.schemes))
        return len(self.schemes) * sum(sizes) // 4 + 3 * max(sizes)

    def work(self, load: Workload) -> Work:
        """A backward sweep with a product for each width, what is looked at first, and what it takes to find
        the codes that are measured. The quantizing sweep is planned as such.
        """
        if not self.measures:
            return Work()
        widths = len(self.schemes) * load.blocks / FORWARD
        looked = _LOOKING * load.blocks * min(load.tokens, self.looked_tokens)
        products = min(load.tokens, MEASURED_TOKENS) * (load.backward + widths) + looked
        linears = self.selected(load.anatomy)
        if self.damping is not None:
            return Work(products) + gptq_codes_work(linears, self.schemes)
        return Work(products, roundings=sum(map(weights_of, linears)) * sum(map(grids_tried, self.schemes)))

    def apply(self, stage: Stage) -> StageResult:
        """Measure, solve, quantize."""
        anatomy = stage.source.anatomy
        details: dict[str, Any] = {}
        allocation = self._checked(anatomy) if self.plan is not None else self._solve(stage, details)
        step = [(str(self.using["pass"]), one) for one in self._quantizers(allocation)]
        schemes = dict(stage.source.schemes) | {name: Scheme.parse(s) for name, s in allocation.items()}
        result = sweep_within(stage, [step], schemes, allocation)
        for status in result.statuses:
            status.step = "allocate"
        result.details.update({"allocation": allocation, **details})
        return result

    def _quantizers(self, allocation: Allocation) -> list[BlockPass]:
        """A pass for each scheme, or one for all where it takes the schemes of single layers."""
        by_scheme: dict[str, list[str]] = {}
        for name, scheme in allocation.items():
            by_scheme.setdefault(scheme, []).append(name)
        passes = [self.quantizer(Scheme.parse(scheme), names) for scheme, names in by_scheme.items()]
        if "schemes" not in type(passes[0]).model_fields:
            return passes
        schemes = {name: Scheme.parse(scheme) for name, scheme in allocation.items()}
        return [passes[0].model_copy(update={"schemes": schemes, "targets": tuple(schemes)})]

    def _checked(self, anatomy: Anatomy) -> Allocation:
        """The given plan, in the order of the model."""
        plan = dict(self.plan or {})
        linears = {linear.name: linear for linear in anatomy.linears()}
        unknown = [name for name in plan if name not in linears]
        if unknown:
            raise RecipeError(
                f"the plan names {unknown[0]}, which is no linear of this model",
                fix=f"its linears are called like {next(iter(linears))}",
            )
        for name, scheme in plan.items():
            if not divides(Scheme.parse(scheme), linears[name]):
                raise ShapeError(
                    f"{name} has {linears[name].in_features} inputs: {scheme} does not divide them"
                )
        return {name: plan[name] for name in linears if name in plan}

    def _solve(self, stage: Stage, details: dict[str, Any]) -> Allocation:
        groups = list(self._groups(stage.source.anatomy))
        costs = self._costs(stage, [linear for group in groups for linear in group])
        for name in costs:
            costs[name], unseen = costs_with_unseen(stage.source.anatomy.blocks, costs[name])
            details |= {"unseen_experts": unseen} if unseen and not name else {}
        assert self.bits is not None
        allocation, predicted = within_budget(groups, self.schemes, self.bits, costs)
        details |= {**predicted, "costs": costs[""]}
        return allocation

    def _groups(self, anatomy: Anatomy) -> Iterator[list[Linear]]:
        """The linears that get one scheme together."""
        for block in anatomy.blocks:
            for group in block.inputs():
                mine = [linear for linear in group if self.selects(linear)]
                if mine:
                    yield mine

    def _costs(self, stage: Stage, linears: Sequence[Linear]) -> dict[str, Costs]:
        """The given ones, or measured: of ordinary text, under "", and of each protected group."""
        if self.costs is None:
            return costs_as_rounded(stage, "allocate", self.schemes, linears, self.damping)
        if stage.calibration is not None and stage.calibration.protected:
            raise RecipeError("costs that are given know nothing of protected groups", fix="leave out costs")
        missing = [linear.name for linear in linears if linear.name not in self.costs]
        if missing:
            raise RecipeError(f"the costs do not name {missing[0]}", fix="leave out costs: they are measured")
        return {"": self.costs}


PASS = Allocate
