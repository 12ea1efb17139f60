"""Rounding an embedding or head by GPTQ, under what its errors cost the whole model.

Rounded to nearest to 4 bits they can cost more than all layers together: on SmolLM2 a KL of 0.14, of which
0.13 is the head's. The head is a linear layer, and GPTQ (Frantar et al. 2022, arXiv 2210.17323; its
recursion is :mod:`.column_recursion`) needs its Hessian alone. An error ``e`` of the row of token ``v``
costs, to second order, ``½ eᵀ A_v e`` nats of KL a token. By the logits ``A_v`` is ``E[p_v (1 − p_v) h
hᵀ]``, with ``h`` the states that the head reads and ``p`` what the model predicts of them; by the embedding
it is ``f_v F``, with ``f_v`` how often the token is read and ``F`` the Fisher information of the
embedding's outputs (:mod:`edgepress.compress.measure.fisher`). Both are nearly the same for all tokens but
for a factor, how frequent the token is, and that has no part in how its own row is best rounded. So rows
share the sums over all tokens, ``H = E[(1 − Σ_v p_v²) h hᵀ]`` and ``F``; a table that is both embedding and
head is rounded under ``H + F``. Then codes and scales are refined under it (:mod:`.refinement`); the scales
stay short, so that exports find the codes again.

An encoder–decoder reads one table in both stacks: ``F`` is the sum over both, and all is a token that is
written, of which there is at least as much text as of a decoder's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...terminal.progress import Tick, unseen
from ..measure.fisher import LOGITS_AT_ONCE, Measure, Observer, TakeGradient
from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy
from ..model.skeleton import Head, Skeleton
from ..numbers.grid import encode, fit_grid
from ..numbers.scheme import Scheme
from ..numbers.table_rounding import short_scales
from ..numbers.table_scheme import rows_of
from ..pipeline.stage import Stage
from .column_recursion import quantize_in_order
from .damped_cholesky import damped, factorize
from .group_solving import DAMPING
from .refinement import refine

TOKENS = 8192  # that the Hessians are measured on, and those of protected groups
_ROWS = 8192  # of a table that are rounded at once
_REFINEMENTS = 3
_FISHER, _GRAM = "embedding_fisher", "head_gram"


def gains(anatomy: Anatomy) -> bool:
    """Whether the model has a head, and does no more with its embedding than multiply it."""
    entry = anatomy.decoder_entry
    plain = anatomy.embedding_norm is None and anatomy.embedding_projection is None
    plain = plain and (entry is None or entry.embedding_norm is None)
    return anatomy.kind != "encoder" and anatomy.head is not None and plain


def table_hessians(stage: Stage, who: str) -> dict[str, Tensor]:
    """Of the embedding, and of a head of its own, ``[hidden, hidden]`` float32 by module name; measured by a
    backward sweep for ``who``.
    """
    anatomy = stage.source.anatomy
    batches, _ = stage.measured_text(who).grouped(TOKENS, written=True)
    with Skeleton(stage.source, stage.device).head() as head:
        found = stage.measured_on(batches, who, both_hessians(anatomy, head))
    fisher = sum_of(found) * anatomy.embedding_scale**2
    gram = found[_GRAM]
    if anatomy.tied:
        return {anatomy.embedding: gram + fisher}
    return {anatomy.embedding: fisher, str(anatomy.head): gram}


def sum_of(found: Mapping[str, Tensor]) -> Tensor:
    """F, of what was found in each stack that reads the embedding."""
    parts = [tensor for name, tensor in found.items() if name.startswith(_FISHER)]
    return torch.stack(parts).sum(0)


def both_hessians(anatomy: Anatomy, head: Head) -> Measure:
    """Finds ``head_gram`` and ``embedding_fisher``, H and F of the file's first lines: the latter by the
    number of the block that reads the embedding, unless it is the first.
    """
    stacks = anatomy.ranges() if anatomy.hearing is None else anatomy.ranges()[1:]
    first, last = [stack.start for stack in stacks], anatomy.blocks[-1].prefix

    def measure(block: BlockAnatomy, weight: object) -> Mapping[str, Observer]:
        found: dict[str, Observer] = {}
        if block.index in first:
            name = f"{_FISHER}.{block.index}" if block.index else _FISHER
            found[name] = _InputFisher(block.prefix, anatomy.hidden_size)
        if block.prefix == last:
            found[_GRAM] = _HeadGram(last, anatomy.hidden_size, head)
        return found

    return measure


@dataclass(frozen=True)
class RoundedTable:
    """A ``table [rows, hidden]`` on its grid, in the type that it came in; the relative squared ``error`` of
    its outputs; the ``damping`` it was solved with, None where the Hessian did not factor and the table was
    rounded to nearest.
    """

    table: Tensor
    error: float
    damping: float | None


def round_table(table: Tensor, hessian: Tensor, scheme: Scheme, tick: Tick = unseen) -> RoundedTable:
    """``table [rows, hidden]`` on a grid of ``scheme``, under ``hessian [hidden, hidden]``; ``tick`` receives
    the rows that are done.
    """
    importance = hessian.diagonal().clamp(min=0)
    order = torch.sort(importance, descending=True, stable=True).indices
    factor = factorize(hessian, DAMPING, order)
    target = hessian if factor is None else damped(hessian, factor.damping)
    stored, lost, whole = torch.empty_like(table), 0.0, 0.0
    for rows, own in _some_rows(len(table), scheme):
        weight = table[rows].to(hessian)
        short = partial(short_scales, scheme=own, dtype=table.dtype)
        scale = short(fit_grid(weight, own, "mse", importance)[0])
        if factor is None:
            tensor = encode(weight, scale, None, own)
        else:
            tensor = quantize_in_order(weight, scale, None, factor, order, own)
            tensor = refine(weight, target, tensor, _REFINEMENTS, short=short)
        found = tensor.dequantize()
        stored[rows] = found.to(table)
        left = found.sub_(weight)
        lost += float((left @ hessian * left).sum())
        whole += float((weight @ hessian * weight).sum())
        tick(len(weight))
    return RoundedTable(stored, lost / max(whole, 1e-30), None if factor is None else factor.damping)


def _some_rows(rows: int, scheme: Scheme) -> Iterator[tuple[slice, Scheme]]:
    """All rows of a table of so many, as many at once as are rounded, each with its scheme."""
    for part, own in rows_of(scheme, rows):
        for start in range(part.start, part.stop, _ROWS):
            yield slice(start, min(start + _ROWS, part.stop)), own


class _InputFisher:
    """Of what the block ``module`` reads: ``E[d dᵀ]``."""

    at_input = True

    def __init__(self, module: str, wide: int) -> None:
        self.module, self.total = module, torch.zeros(wide, wide)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        self.total = self.total.to(inputs.device)

        def add(gradient: Tensor) -> None:
            rows = gradient.to(torch.float32)
            self.total.addmm_(rows.T, rows)

        return add

    def found(self, tokens: int, scale: float) -> Tensor:
        return self.total / tokens


class _HeadGram:
    """Of the states that ``head`` reads behind the block ``module``: ``E[Σ_v g_v² p_v (1 − p_v) h hᵀ]``, with
    ``g`` what a logit changes by with the head's product.
    """

    at_input = False

    def __init__(self, module: str, wide: int, head: Head) -> None:
        self.module, self.head, self.total = module, head, torch.zeros(wide, wide)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        self.total = self.total.to(outputs.device)
        with torch.no_grad():
            for part in torch.split(outputs[real], LOGITS_AT_ONCE):
                states = self.head.norm(part).to(torch.float32)
                logits = self.head.logits(states)
                chances = torch.softmax(logits, -1)
                weights = chances * (1 - chances)
                if self.head.form is not None:
                    weights *= self.head.form.gradient(logits, torch.ones_like(logits)).square()
                self.total.addmm_(states.T * weights.sum(-1), states)
        return _nothing

    def found(self, tokens: int, scale: float) -> Tensor:
        return self.total / tokens


def _nothing(gradient: Tensor) -> None:
    """What the head reads is looked at on the way forth."""
