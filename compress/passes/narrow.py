"""Fewer heads and fewer MLP channels under one budget; what reads them compensates for what goes.

Heads, in a decoder also those of its attention to an encoder's states, are rows of q, k and v and columns
of o (Michel et al. 2019, "Are Sixteen Heads Really Better than
One?", arXiv 1905.10650), channels rows of gate and up and columns of down. By default those go that the
others can replace best (Ling et al. 2024, SlimGPT, arXiv 2412.18110), and how many in each block is solved
from what the model loses without them (Molchanov et al. 2019, arXiv 1906.10771): with both ``parts`` the
budget goes to where the model loses least, be it attention or MLP.

The widths of all blocks are needed before the first is cut, so it is a barrier in the sweep: measure where
that is asked for, solve, and sweep with ``UnitPruning``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy, Linear
from ..model.checkpoint.block_sizes import config_changes, sizes_of
from ..model.hearing.speech_prompt import without_heads
from ..model.weights import WeightSource
from ..pipeline.advance import Work
from ..pipeline.algorithm import ATTENDING, EXPERTS, Fixed, float_bytes
from ..pipeline.block_pass import Selective
from ..pipeline.model_pass import ModelPass, Workload
from ..pipeline.stage import MEASURED, Stage, StageResult
from ..pipeline.sweep import sweep_within
from ..prune.structured.budget import WEIGHTS, BlockPart, BudgetOption, check_cut, room_for
from ..prune.structured.part_pruning import Importance, Repair, UnitPruning, Widths
from ..prune.structured.units import ChannelUnits, HeadUnits, PrunablePart, Unit, weights_in
from ..prune.structured.widths import (
    GivenWidths,
    WidthChoice,
    check_shared,
    given,
    measure_of,
    narrowed,
    odd,
    refitted,
    shared_units,
    solved,
    tables_of,
    uniform,
)
from ..text.micro_batches import MEASURED_TOKENS

# Fraction of the mean Gram diagonal that is added. A tenth, since least squares learn a short text by heart:
# on SmolLM2 with 70 % of its blocks and 4,096 tokens a hundredth leaves a KL of 0.88, a tenth 0.82, a third
# 0.84.
DAMPING = 0.1


class Narrow(Selective, ModelPass):
    """Options of ``narrow``."""

    works_on: ClassVar[frozenset[str]] = ATTENDING
    text: ClassVar[str] = "to measure or repair"

    fixed: ClassVar[Mapping[str, Fixed]] = MEASURED | {
        "damping": Fixed(DAMPING, "least squares learn a short text by heart with less")
    }
    keep: float | None = Field(
        None, gt=0, lt=1, description="fraction of the budget that is left, at most; null: by widths"
    )
    budget: BudgetOption = WEIGHTS
    widths: WidthChoice | GivenWidths = Field(
        "solved",
        description="solved: as measured, under one budget; uniform: all alike, for plain transformers; or "
        "the units that stay of some blocks, in place of keep: {'3': {heads: 5, ffn: 1024}}",
    )
    importance: Importance = Field(
        "reconstruction",
        description="saliency of a unit: magnitude, activation, taylor, or reconstruction, what the others "
        "cannot replace",
    )
    repair: Repair = Field("least_squares", description="closed-form refit of what is left")
    correction: float = Field(
        0.0, ge=0, le=1, description="fraction of the error of earlier blocks that the repair compensates"
    )
    parts: tuple[Literal["attention", "mlp"], ...] = Field(
        ("attention", "mlp"),
        min_length=1,
        description="what gets narrower: attention loses heads, mlp channels",
    )
    multiple: int = Field(
        32, ge=1, description="MLP widths are multiples of it; groups of a later pass divide it"
    )
    unit: Unit = Field(
        "groups",
        description="heads go as groups, key/value heads with their queries, or as queries, as many from "
        "every group",
    )

    @model_validator(mode="after")
    def _repaired(self) -> Self:
        if self.correction and self.repair != "least_squares":
            raise ValueError("correction is part of the least-squares repair")
        if (self.keep is None) == isinstance(self.widths, str):
            raise ValueError("it takes keep, or the units of blocks under widths, and not both")
        return self

    @property
    def cut_parts(self) -> tuple[PrunablePart, ...]:
        """What is made narrower, in the order of the forward pass."""
        known: dict[str, PrunablePart] = {
            "attention": HeadUnits(self.unit),
            "cross": HeadUnits(self.unit, cross=True),
            "mlp": ChannelUnits(self.multiple),
        }
        asked = {*self.parts, *(["cross"] if "attention" in self.parts else [])}
        return tuple(part for name, part in known.items() if name in asked)

    @property
    def measures(self) -> bool:
        """Whether the losses of units are measured on the whole model."""
        return self.widths == "solved" or self.importance == "taylor"

    @property
    def calibrated(self) -> bool:
        return self.measures or self._cutter({}, {}).reads_batches

    def refuses(self, anatomy: Anatomy) -> Mapping[str, str]:
        """Channels of experts, each by the tokens that come to it, all to one width; heads as of others."""
        measured = self.measures or self.correction > 0 or self.keep is None
        why = (
            "experts of all blocks have one width, and losses of their channels are not measured: "
            "of mixtures it takes parts: [attention], or widths: uniform, no importance: taylor and no "
            "correction"
        )
        return {EXPERTS: why} if measured and "mlp" in self.parts else {}

    @property
    def label(self) -> str:
        if self.keep is None:
            return f"{len(self.widths)} blocks as given"
        return f"{self.keep:.0%} of the {'blocks' if self.budget == WEIGHTS else self.budget.of}"

    def selected(self, anatomy: Anatomy) -> list[Linear]:
        """The linears that get narrower."""
        return [linear for item in self.items(anatomy) for linear in item.part.linears(item.block)]

    def items(self, anatomy: Anatomy) -> list[BlockPart]:
        """The parts of blocks whose reader (down, o) is among the targets."""
        found = (
            BlockPart(block, part, self.budget)
            for block in anatomy.blocks
            for part in self.cut_parts
            if part.there(block)
        )
        return [item for item in found if self.selects(item.part.reader(item.block))]

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        """The model with uniform widths; with solved ones, which are not known yet, with others of the same
        size in all.

        Odd multiples stand for solved ones (:func:`.widths.odd`).
        """
        items = self.items(anatomy)
        if not items:
            return anatomy  # the plan refuses targets that are none
        check_cut(anatomy, items)
        check_shared(anatomy, items, solved=self.widths != "uniform", importance=self.importance)
        if self.widths == "solved":
            return narrowed(anatomy, self.cut_parts, odd(items, self._room(items, anatomy)))
        return narrowed(anatomy, self.cut_parts, self._stated(items, anatomy))

    def _stated(self, items: Sequence[BlockPart], anatomy: Anatomy) -> dict[tuple[int, str], int]:
        """The widths, where nothing is measured for them."""
        if isinstance(self.widths, str):
            return uniform(items, self._room(items, anatomy))
        return given(items, self.widths)

    def _room(self, items: Sequence[BlockPart], anatomy: Anatomy) -> int:
        assert self.keep is not None
        return room_for(items, anatomy, self.keep, self.budget)

    def working_bytes(self, weights: int) -> int:
        """Blocks come one at a time: see :meth:`sweep_bytes`."""
        return 0

    def observers_bytes(self, block: BlockAnatomy) -> int:
        """The Gram of every reader, the inverse of one and its temporaries, and two copies of its weight."""
        readers = [part.reader(block) for part in self.cut_parts if part.there(block)]
        grams = sum(4 * reader.in_features**2 for reader in readers)
        return grams + max(12 * reader.in_features**2 + 2 * float_bytes(reader) for reader in readers)

    def sweep_bytes(self, source: WeightSource, tokens: int, scales: int) -> int:
        """The block, and the Gram of a reader four times over."""
        readers = [item.part.reader(item.block).in_features for item in self.items(source.anatomy)]
        blocks = source.anatomy.blocks
        largest = max(weights_in(list(block.linears())) for block in blocks)
        # The Grams of several experts at once, as far as they weigh no more than these.
        largest += max(weights_in(list(block.expert_linears())) for block in blocks)
        return 4 * largest + 16 * max(readers, default=0) ** 2

    def work(self, load: Workload) -> Work:
        """A backward sweep where losses are measured, then the sweep and its collections. The inverse of a
        reader's Gram without one round of units after the other: by count a third of the cube of its inputs,
        near three times as slow for want of memory's bandwidth; where losses are measured, and for the cut.
        """
        readers = (item.part.reader(item.block).in_features for item in self.items(load.anatomy))
        solved = 0.9 * (1 + self.measures) * sum(wide**3 for wide in readers)
        measured = load.backward * min(load.tokens, MEASURED_TOKENS) if self.measures else 0
        return Work(solved + measured + (1 + len(self.parts)) * load.blocks * load.tokens * self.calibrated)

    def apply(self, stage: Stage) -> StageResult:
        """Find the widths, cut and repair."""
        anatomy = stage.source.anatomy
        items = self.items(anatomy)
        measure = measure_of(items, self.importance, DAMPING, counts=self.widths == "solved")
        measured = stage.measured("narrow", measure) if self.measures else {}
        readers = {item.part.reader(item.block).name for item in items}
        losses = {name: loss for name, loss in measured.items() if name in readers}
        details: dict[str, Any] = {}
        if self.widths == "solved":
            by_count = {item.key: measured[refitted(item)].tolist() for item in items}
            room = self._room(items, anatomy)
            found, details["predicted"] = solved(items, room, by_count)
        else:
            found = self._stated(items, anatomy)
        after = narrowed(anatomy, self.cut_parts, found)
        sizes = [sizes_of(block) for block in after.blocks]
        details |= {"blocks": sizes, "weights": _share(after, anatomy)}
        details[self.budget.of] = self.budget.total(after) / self.budget.total(anatomy)
        config = config_changes(stage.source.reader.config, after)
        key = [[*key, count] for key, count in sorted(found.items())]
        cutter = self._cutter(found, losses).model_copy(
            update={"shared": shared_units(anatomy, items, found, losses), "bias_tables": tables_of(anatomy)}
        )
        result = sweep_within(stage, [[("narrow", cutter)]], stage.source.schemes, key)
        result.details.update(details)
        crossing = any(key[1] == "cross_heads" for key in found)
        files = without_heads(stage.source.reader.path) if crossing else {}
        return replace(result, config=config, files=files)

    def _cutter(self, widths: Widths, losses: dict[str, Tensor]) -> UnitPruning:
        return UnitPruning(
            targets=self.targets,
            ignore=self.ignore,
            step="narrow",
            parts=self.cut_parts,
            widths=dict(widths),
            importance=self.importance,
            repair=self.repair,
            damping=DAMPING,
            losses=losses,
            correction=self.correction,
        )


def _share(after: Anatomy, before: Anatomy) -> float:
    return weights_in(list(after.linears())) / weights_in(list(before.linears()))


PASS = Narrow
