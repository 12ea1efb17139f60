"""``UnitPruning``: the block pass behind the structured ones: each part of each block down to its width.

The statistics of a part are collected from the block as the parts before it left it. What stays is refitted
at once, so that the next block sees the refitted outputs. Which units stay goes by one of four measures:

- ``magnitude``: the product of the norms of its column of the reader and of the rows that make it (Li et al.
  2017, arXiv 1608.08710); no data.
- ``activation``: the norm of what it adds to the reader's output on the calibration tokens.
- ``taylor``: the squared first-order change of the loss without it, summed over tokens (Molchanov et al.
  2019, arXiv 1906.10771); measured by one backward pass (:mod:`edgepress.compress.measure.sensitivity`).
- ``reconstruction``: the error that is left when the other units compensate
  (:mod:`edgepress.compress.solve.elimination`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from ...model.block_anatomy import Linear
from ...pipeline.block import Block, LayerStatus, output_error, weight_error
from ...pipeline.block_pass import BlockPass
from ...pipeline.statistics import STATISTIC_BYTES
from ...solve.damped_cholesky import all_finite, damp, damping_status, inverted
from ...solve.elimination import (
    RefitLinear,
    bias_only,
    columns_of,
    eliminate,
    fit_support,
    in_rounds,
    least_squares,
    lowest,
)
from ...solve.group_solving import collecting_runs
from .residual_fit import ResidualError, adds_plainly, inputs_and_output, norm_after
from .units import PrunablePart

Importance = Literal["magnitude", "activation", "taylor", "reconstruction"]

_ROUNDS = 32

Repair = Literal["least_squares", "bias", "none"]
# Units kept, by block and the name of the part.
Widths = Mapping[tuple[int, str], int]
_FIT_STEPS = 30


def kept_units(
    block: Block,
    part: PrunablePart,
    count: int,
    importance: Importance,
    inputs: Mapping[str, Tensor],
    losses: Mapping[str, Tensor],
    damping: float,
) -> Tensor | None:
    """The ``count`` units of ``part`` that stay, ascending; None where the Gram cannot be inverted.

    ``inputs`` are statistics of the reader's inputs, ``losses`` the measured ones of units by reader.
    """
    anatomy = block.anatomy
    reader, size, partitions = part.reader(anatomy), part.unit(anatomy), part.partitions(anatomy)
    weight = block.weight(reader)
    units = reader.in_features // size
    gone = (units - count) // partitions
    if importance == "reconstruction":
        inverse = inverted(inputs["gram"], damping)
        if inverse is None:
            return None
        return eliminate(weight.clone(), inverse, size, partitions, in_rounds(gone, _ROUNDS))[0]
    if importance == "taylor":
        scores = losses[reader.name].to(weight.device)
    elif importance == "activation":
        scores = added_power(weight, inputs["gram"], size)
    else:
        scores = magnitudes(block, part)
    stays = torch.ones(units, dtype=torch.bool, device=weight.device)
    stays[lowest(scores, partitions, gone)] = False
    return stays.nonzero().flatten()


def added_power(weight: Tensor, gram: Tensor, size: int) -> Tensor:
    """``E‖W_S x_S‖²`` of each unit ``[units]``."""
    if size == 1:
        return weight.square().sum(0) * gram.diagonal()
    units = weight.shape[1] // size
    blocks = gram.view(units, size, units, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    parts = weight.T.reshape(units, size, -1)
    return ((blocks @ parts) * parts).sum((1, 2))


def magnitudes(block: Block, part: PrunablePart) -> Tensor:
    """The product over the reader and the linears that feed it of the norms of each unit's weights."""
    anatomy = block.anatomy
    reader, size = part.reader(anatomy), part.unit(anatomy)
    total = block.weight(reader).square().sum(0).view(-1, size).sum(1).sqrt()
    for rows in part.makers(block):
        total = total * rows.square().sum(1).view(len(total), -1).sum(1).sqrt()
    return total


class UnitPruning(BlockPass):
    """Not a pass of recipes: those that are one run it with the widths that they have found.

    ``shared`` are the units that stay, by reader, where blocks have to keep the same ones; ``bias_tables``
    the biases of heads ``[distances, heads]`` that a block has for all of its stack, by its number.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    step: str
    parts: tuple[Any, ...]
    widths: Mapping[tuple[int, str], int]
    importance: Importance
    repair: Repair
    damping: float
    losses: Mapping[str, Tensor]
    correction: float = 0.0
    shared: Mapping[str, Tensor] = {}
    bias_tables: Mapping[int, str] = {}

    def statistics(self, reader: Linear) -> tuple[str, ...]:
        """What is collected of the inputs of ``reader``."""
        gram = self.importance in ("activation", "reconstruction") or self.repair == "least_squares"
        mean = reader.bias and self.repair != "none"
        return (*(("gram",) if gram else ()), *(("mean",) if mean else ()))

    @property
    def compares(self) -> bool:  # type: ignore[override]
        return self.correction > 0

    @property
    def reads_batches(self) -> bool:  # type: ignore[override]
        return self.importance in ("activation", "reconstruction") or self.repair != "none"

    @property
    def coarse(self) -> bool:
        return True

    def apply(self, block: Block) -> None:
        for part in self.parts:
            count = self.widths.get((block.anatomy.index, part.name))
            if count is not None and (self.compares or count < part.counts(block.anatomy)[-1]):
                if block.anatomy.experts is None or part.name != "ffn":
                    inputs = self._collected(block, part.reader(block.anatomy))
                    self._narrow(block, part, count, inputs)
                else:
                    self._narrow_experts(block, part, count)

    def _narrow_experts(self, block: Block, part: PrunablePart, count: int) -> None:
        """Each expert by the tokens that come to it, all to one width."""
        before = block.anatomy
        mlps = {mlp.down.name: mlp for mlp in before.expert_mlps()}
        needs = self.statistics(before.mlp.down)

        def bytes_of(group: Sequence[Linear]) -> int:
            return sum(STATISTIC_BYTES[need](group[0].in_features) for need in needs)

        for groups in collecting_runs(before, lambda linear: linear.name in mlps, bytes_of):
            readers = [linear for group in groups for linear in group]
            found = block.collect(readers, needs) if needs else {}
            for reader in readers:
                alone = replace(before, experts=None, feed_forward=mlps[reader.name])
                self._narrow(replace(block, anatomy=alone), part, count, found.get(reader.name, {}))
        block.anatomy = part.narrowed(before, count)

    def _collected(self, block: Block, reader: Linear) -> Mapping[str, Tensor]:
        needs = self.statistics(reader)
        return block.collect([reader], needs)[reader.name] if needs else {}

    def _narrow(self, block: Block, part: PrunablePart, count: int, inputs: Mapping[str, Tensor]) -> None:
        before = block.anatomy
        reader, size = part.reader(before), part.unit(before)
        units = self.shared.get(reader.name)
        if units is None:
            units = kept_units(block, part, count, self.importance, inputs, self.losses, self.damping)
        fallen = units is None
        if units is None:
            units = kept_units(block, part, count, "magnitude", inputs, self.losses, self.damping)
            assert units is not None
        kept = columns_of(units, size)
        weight = block.weight(reader)
        fitted = self._corrected(block, reader, weight, kept) if self.compares else None
        repaired = self._repaired(block, reader, weight, kept, inputs) if fitted is None else fitted
        whole = f"{reader.in_features // size}"
        part.cut(block, units, repaired.weight)
        table = self.bias_tables.get(before.index) if part.name == "heads" else None
        if table is not None:
            block.set_parameter(table, block.parameter(table)[:, units].contiguous())
        if repaired.bias is not None:
            block.set_parameter(f"{reader.name}.bias", repaired.bias)
        error = self._error(weight, block.weight(part.reader(block.anatomy)), kept, inputs.get("gram"))
        status, detail = self._status(repaired.damping, fallen)
        label, kind = f"{part.name} {whole} → {len(units)}", "output" if "gram" in inputs else "weight"
        block.statuses.append(LayerStatus(reader.name, self.step, label, status, error, kind, detail))

    def _repaired(
        self, block: Block, reader: Linear, weight: Tensor, kept: Tensor, inputs: Mapping[str, Tensor]
    ) -> RefitLinear:
        bias = block.parameter(f"{reader.name}.bias") if reader.bias else None
        if self.repair == "none":
            return RefitLinear(weight[:, kept], None, self.damping)
        if self.repair == "bias":
            fitted = None if bias is None else bias_only(weight, bias, inputs["mean"], kept)
            return RefitLinear(weight[:, kept], fitted, self.damping)
        found = least_squares(weight, bias, inputs["gram"].clone, inputs.get("mean"), kept, self.damping)
        mask = block.masks.get(reader.name)
        if mask is None or found.damping is None:
            return found
        # Zeros of an earlier pass stay: the least squares are solved on what is left.
        hessian = damp(inputs["gram"][kept][:, kept].clone(), found.damping)
        stays = mask[:, kept]
        start = weight[:, kept] * stays
        return RefitLinear(fit_support(found.weight, hessian, stays, start, _FIT_STEPS), bias, found.damping)

    def _corrected(self, block: Block, reader: Linear, weight: Tensor, kept: Tensor) -> RefitLinear | None:
        """The refit that also compensates for earlier blocks; None where a norm stands before the sum, or
        zeros of an earlier pass have to stay.
        """
        anatomy = block.anatomy
        if block.original is None or not adds_plainly(anatomy, reader) or reader.name in block.masks:
            return None
        norm = norm_after(anatomy, reader)
        before, after = (
            ({}, {})
            if norm is None
            else (
                {"sum": block.original.get_submodule(block.local(norm.name))},
                {"sum": block.module.get_submodule(block.local(norm.name))},
            )
        )
        error, point = ResidualError(reader, weight.device), "output" if norm is None else "sum"
        for batch, reference in zip(block.batches(), block.references(), strict=True):
            now = inputs_and_output(block.module, {**after, "rows": block.linears[reader.name]}, batch)
            missing = inputs_and_output(block.original, before, reference)[point] - now[point]
            error.add(now["rows"], missing, batch.mask)
        bias = block.parameter(f"{reader.name}.bias") if reader.bias else None
        return error.fit(weight, bias, kept, self.damping, self.correction).fit

    @staticmethod
    def _error(weight: Tensor, after: Tensor, kept: Tensor, gram: Tensor | None) -> float:
        change = -weight
        change[:, kept] += after
        if gram is None or not all_finite(gram):
            return weight_error(change, weight)
        return output_error(change, weight, gram)

    def _status(self, damping: float | None, fallen: bool) -> tuple[str, str]:
        if fallen:
            return "fallback-magnitude", "the Gram is not positive definite: units were chosen by magnitude"
        if damping is None:
            return "fallback-unrepaired", "the Gram is not positive definite: nothing made up for what went"
        return damping_status(self.damping, damping, "fallback-unrepaired")
