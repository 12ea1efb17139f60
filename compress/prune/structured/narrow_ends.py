"""The two ends of a narrower residual stream: the embedding that begins it, the final norm and the head that
read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...model.block_anatomy import Norm
from ...model.checkpoint.block_sizes import with_hidden_size
from ...model.weights import WeightSource
from ...pipeline.block import LayerStatus
from ...pipeline.block_inputs import Stream
from ...solve.damped_cholesky import DAMPINGS
from .residual_basis import normalized
from .residual_cut import norm_weight, scale_of, tied_scales
from .residual_fit import Reading, fit_reading, fitted_scales
from .residual_repair import UNREPAIRED

Tensors = dict[str, Tensor]


class Ends:
    """Embedding, final norm and head of ``source`` in ``basis [hidden, kept]``, repaired by :meth:`fit`.

    ``separate``: the head is a matrix of its own, or becomes one, and takes in the final norm's scales; else
    it is the embedding, and the scales are all that can be fitted.
    """

    def __init__(self, source: WeightSource, basis: Tensor, *, separate: bool) -> None:
        anatomy = source.anatomy
        assert anatomy.final_norm is not None and anatomy.head is not None
        self.source, self.basis, self.separate = source, basis, separate
        self.norm: Norm = anatomy.final_norm
        self.eps = self.norm.eps * scale_of(basis) ** 2
        self.old_scales = self.norm.offset + self._read(f"{self.norm.name}.weight")
        self.embedding = self._read(f"{anatomy.embedding}.weight") @ basis.to(torch.float32)
        if separate:
            self.scales = norm_weight(self.norm, basis) + self.norm.offset
            self.head = self._folded_head() @ basis.to(torch.float32)
        else:
            self.scales, self.head = tied_scales(self.old_scales, basis), self.embedding

    def fit(self, wide: Stream, narrow: Stream, *, repairs: bool, damping: float | None) -> LayerStatus:
        """Repair what reads the last states of the stream ``narrow [tokens, kept]``, which are those of
        ``wide [tokens, hidden]`` in the original; the error is that of what the head reads. ``damping`` as in
        :class:`.residual_repair.NarrowBlock`.

        All tokens are in memory at once, so that each half is one product whose order of sums is fixed.
        """
        end = len(self.source.anatomy.blocks)

        def before(rows: Tensor) -> Tensor:
            given = normalized(rows, self.norm.eps)
            return given if self.separate else given * self.old_scales

        def after(rows: Tensor) -> Tensor:
            now = normalized(rows, self.eps)
            return now * self.scales if self.separate else now

        given, now = _stacked(wide, end, before), _stacked(narrow, end, after)
        halves = Reading(self.basis), Reading(self.basis)
        for number, half in enumerate(halves):
            half.add(given[number::2], now[number::2])
        both = halves[0] + halves[1]
        fitted = None
        if repairs:
            fitted = (
                self._fitted_head(halves, damping) if self.separate else self._fitted_scales(both, damping)
            )
        status, detail = UNREPAIRED if fitted is None and repairs else ("ok", "")
        label = f"width {len(self.basis)} → {self.basis.shape[1]}"
        unfitted = both.start if self.separate else both.start * self.scales
        error = both.error(unfitted if fitted is None else fitted)
        return LayerStatus(self.norm.name, "width", label, status, error, "output", detail)

    def _fitted_head(self, halves: tuple[Reading, Reading], damping: float | None) -> Tensor | None:
        found = fit_reading(halves, damping)
        if found is not None:
            self.head = self._folded_head() @ found
        return found

    def _fitted_scales(self, reading: Reading, damping: float | None) -> Tensor | None:
        table = self._read(f"{self.source.anatomy.embedding}.weight")
        table = table - table.mean(0)
        used = DAMPINGS[0] if damping is None else damping
        scales = fitted_scales(reading, self.scales, table.T @ table, self.basis, used)
        if scales is None:
            return None
        self.scales = scales
        return reading.start * scales

    def logits(self, narrow: Tensor) -> Tensor:
        """Logits ``[tokens, vocab]`` of states ``[tokens, kept]`` that leave the last block."""
        bias = self.source.bias(self.source.anatomy.head or "")
        rows = normalized(narrow, self.eps) * self.scales
        return torch.nn.functional.linear(rows, self.head, None if bias is None else bias.to(rows.device))

    def tensors(self) -> tuple[Tensors, Tensors]:
        """Parameters outside the blocks that changed, and those that the model did not have."""
        anatomy, head = self.source.anatomy, f"{self.source.anatomy.head}.weight"
        changed = {
            f"{anatomy.embedding}.weight": self.embedding,
            f"{self.norm.name}.weight": self.scales - self.norm.offset,
        }
        if not self.separate:
            return changed, {}
        if anatomy.tied:
            stored = self.source.stored_type(f"{anatomy.embedding}.weight")
            return changed, {head: self.head.to(stored)}
        return changed | {head: self.head}, {}

    def config(self) -> dict[str, Any]:
        """Entries of ``config.json`` that change. The epsilon is that of all norms of the model."""
        anatomy = self.source.anatomy
        changes = with_hidden_size(self.source.reader.config, anatomy, self.basis.shape[1])
        changes["rms_norm_eps"] = self.eps
        return changes | ({"tie_word_embeddings": False} if anatomy.tied and self.separate else {})

    def _folded_head(self) -> Tensor:
        """The head ``[vocab, hidden]`` with the final norm's scales in it."""
        anatomy = self.source.anatomy
        return self._read(f"{anatomy.embedding if anatomy.tied else anatomy.head}.weight") * self.old_scales

    def _read(self, name: str) -> Tensor:
        return self.source.tensor(name).to(self.basis.device)


def _stacked(stream: Stream, block: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The states of all real tokens at ``block`` ``[tokens, channels]``, after ``change``, in one copy."""
    first, tokens = next(stream.rows(block)), sum(map(len, stream.rows(block)))
    table, start = first.new_empty(tokens, first.shape[1]), 0
    for rows in stream.rows(block):
        table[start : start + len(rows)] = change(rows)
        start += len(rows)
    return table
