"""Which inputs of a linear can go at the least error of its output, and the refit of the weights that stay.

Hassibi & Stork 1993, "Second Order Derivatives for Network Pruning: Optimal Brain Surgeon", with whole
groups of columns in the place of single weights, as in Ling et al. 2024, "SlimGPT: Layer-wise Structured
Pruning for Large Language Models", arXiv 2412.18110. With ``G`` the Gram of the inputs, dropping the
columns ``S`` of ``W`` costs ``tr(W_S ((G⁻¹)_SS)⁻¹ W_Sᵀ)`` at best, which ``W − W_S ((G⁻¹)_SS)⁻¹ (G⁻¹)_S``
reaches. The units of least cost go, the inverse is updated, and the costs are computed again.

The refit of columns is least squares in closed form. With K the kept and P the pruned columns of ``W [out,
in]``, ``E‖W x − W' x_K‖²`` is least at ``W' = W_K + W_P G_PK G_KK⁻¹``; the damping holds ``W'`` to ``W_K``
where the inputs tell little. A linear with a bias is fitted with it: then means are subtracted first.

Where each row has a support of its own, ``(q − w) H (q − w)ᵀ`` is lessened over the ``q`` that are zero where
the mask is False, by conjugate gradients with the diagonal of ``H`` as preconditioner, all rows at once (as
the last stage of Meng et al. 2024, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large
Language Models", arXiv 2406.07831). A step costs one matrix product, and no step makes the error larger.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...terminal.progress import Tick, unseen
from .damped_cholesky import damp_until_factored, solved

# The share of a matrix's columns that are of units still there, below which the others are left behind; and
# how many rows move at once.
_DENSE, _ROWS = 0.9, 256


def columns_of(units: Tensor, size: int) -> Tensor:
    """The columns of ``units``, each of ``size`` columns, in order."""
    return (units.unsqueeze(1) * size + torch.arange(size, device=units.device)).flatten()


def removal_errors(weight: Tensor, inverse: Tensor, size: int, units: Tensor) -> Tensor:
    """The least output error of dropping each of ``units``, of ``size`` columns, alone ``[units]``.

    ``weight [out, in]``, ``inverse [in, in]`` of the Gram.
    """
    if size == 1:
        return weight.square().sum(0)[units] / inverse.diagonal()[units]
    count = weight.shape[1] // size
    blocks = inverse.view(count, size, count, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)[units]
    parts = weight.T.reshape(count, size, -1)[units]
    solved: Tensor = torch.linalg.solve(blocks, parts)
    return (solved * parts).sum((1, 2))


def lowest(scores: Tensor, partitions: int, count: int) -> Tensor:
    """The ``count`` units of lowest ``scores [units]`` in each of the ``partitions``, ties by position."""
    rows = scores.view(partitions, -1)
    first = torch.arange(partitions, device=scores.device).unsqueeze(1) * rows.shape[1]
    return (rows.sort(dim=1, stable=True).indices[:, :count] + first).flatten()


def eliminate(
    weight: Tensor, inverse: Tensor, size: int, partitions: int, rounds: Sequence[int]
) -> tuple[Tensor, list[float]]:
    """The units that are left ``[kept]``, ascending, when in each round so many go from every partition; and
    by how much each round raised the squared output error.

    ``weight [out, in]`` and ``inverse [in, in]`` are overwritten; when a tenth of their columns is of units
    that went, the others move together, so that later rounds work on as many as are left.
    """
    raised = []
    inverse = inverse if inverse.is_contiguous() else inverse.mT  # the same: LAPACK's columns become rows
    units = torch.arange(weight.shape[1] // size, device=weight.device)  # those with a place in the matrices
    alive = torch.ones_like(units, dtype=torch.bool)
    for number in rounds:
        if int(alive.sum()) <= _DENSE * len(alive):
            kept = columns_of(alive.nonzero().flatten(), size)
            weight, inverse = _moved_together(weight, None, kept), _moved_together(inverse, kept, kept)
            units, alive = units[alive], alive[alive]
        places = alive.nonzero().flatten()
        costs = torch.full(alive.shape, torch.inf, dtype=weight.dtype, device=weight.device)
        costs[places] = removal_errors(weight, inverse, size, places)
        gone = lowest(costs, partitions, number)
        alive[gone] = False
        gone = columns_of(gone, size)
        rows = inverse[gone]
        solved = torch.linalg.solve(rows[:, gone], rows)
        lost = weight[:, gone]
        raised.append(float((torch.linalg.solve(rows[:, gone], lost.T) * lost.T).sum()))
        weight.addmm_(lost, solved, alpha=-1)
        inverse.addmm_(rows.T, solved, alpha=-1)  # in place: at 14,336 inputs a product is 0.8 GB
    return units[alive], raised


def _moved_together(matrix: Tensor, rows: Tensor | None, columns: Tensor) -> Tensor:
    """The ``rows`` (None: all) and ``columns``, ascending, of ``matrix``, in the first part of its memory:
    some rows at a time, each of which lies behind where it goes.
    """
    matrix = matrix.contiguous()
    rows = torch.arange(len(matrix), device=matrix.device) if rows is None else rows
    memory, width = matrix.view(-1), len(columns)
    for first in range(0, len(rows), _ROWS):
        part = matrix[rows[first : first + _ROWS]][:, columns]
        memory[first * width : first * width + part.numel()] = part.view(-1)
    return memory[: len(rows) * width].view(len(rows), width)


def in_rounds(total: int, rounds: int) -> list[int]:
    """``total`` removals in at most ``rounds`` rounds, as even as can be."""
    rounds = max(1, min(rounds, total))
    return [total // rounds + (index < total % rounds) for index in range(rounds)]


@dataclass(frozen=True)
class RefitLinear:
    """``weight [out, kept]``, ``bias [out]`` or None; the fraction of the mean diagonal that had to be
    added, or None where the Gram does not factor and nothing was refitted.
    """

    weight: Tensor
    bias: Tensor | None
    damping: float | None


def least_squares(
    weight: Tensor,
    bias: Tensor | None,
    gram: Callable[[], Tensor],
    mean: Tensor | None,
    kept: Tensor,
    damping: float,
    gap: Tensor | None = None,
    shift: Tensor | None = None,
) -> RefitLinear:
    """The repaired linear of ``weight [out, in]`` on its columns ``kept``.

    ``gram`` gives one ``[in, in]`` of the inputs that may be overwritten, each time that one is needed: a
    wide linear's is the largest matrix there is, and one is held at a time. ``mean [in]`` is of the inputs,
    needed for a ``bias [out]``. Where another output ``y`` is wanted than the linear's own, ``gap [out, in]``
    is ``E[(y − W x − b) xᵀ]`` and, for a bias, ``shift [out]`` is ``E[y − W x − b]``.
    """
    pruned = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    pruned[kept] = False
    every = torch.equal(kept, torch.arange(len(pruned), device=kept.device))
    centre = None if bias is None else mean

    def square() -> Tensor:
        centred = _centred(gram(), centre)
        return centred if every else centred[kept][:, kept]

    if every:
        wanted = torch.zeros_like(weight)
    else:
        wanted = weight[:, pruned] @ _centred(gram(), centre)[pruned][:, kept]
    if gap is not None:
        wanted = wanted + gap[:, kept]
        if bias is not None and mean is not None and shift is not None:
            wanted -= torch.outer(shift, mean[kept])
    factor, used = damp_until_factored(square, damping)
    if factor is None:
        return RefitLinear(weight[:, kept], bias, None)
    change = solved(factor, wanted.T).T
    if bias is not None and mean is not None:
        bias = bias + weight[:, pruned] @ mean[pruned] - change @ mean[kept]
        bias = bias if shift is None else bias + shift
    return RefitLinear(weight[:, kept] + change, bias, used)


def _centred(gram: Tensor, mean: Tensor | None) -> Tensor:
    """``gram [in, in]``, which is overwritten, of inputs without their ``mean [in]``."""
    return gram if mean is None else gram.sub_(torch.outer(mean, mean))


def bias_only(weight: Tensor, bias: Tensor | None, mean: Tensor, kept: Tensor) -> Tensor | None:
    """The bias that keeps the mean output when only the columns ``kept`` of ``weight`` stay as they are."""
    if bias is None:
        return None
    pruned = torch.ones_like(mean, dtype=torch.bool)
    pruned[kept] = False
    return bias + weight[:, pruned] @ mean[pruned]


# A row whose squared residual is this part of what it was is left alone: float32 knows no better.
_ARRIVED = 1e-10


def fit_support(
    target: Tensor, hessian: Tensor, mask: Tensor, start: Tensor, steps: int, tick: Tick = unseen
) -> Tensor:
    """``start [out, in]`` moved towards the minimum around ``target [out, in]`` where ``mask`` is True.

    ``hessian [in, in]`` is positive definite; ``start`` is zero where ``mask`` is False. ``tick`` receives
    the multiply-adds of each step.
    """
    scale = hessian.diagonal()
    weight = start.clone()
    residual = ((target - weight) @ hessian).mul_(mask)
    step = residual / scale
    power = (residual * step).sum(1, keepdim=True)
    arrived = _ARRIVED * power
    for _ in range(steps):
        image = (step @ hessian).mul_(mask)
        length = _ratio(power, (step * image).sum(1, keepdim=True)) * (power > arrived)
        weight += length * step
        residual -= length * image
        before = power
        power = (residual.square() / scale).sum(1, keepdim=True)
        step = step.mul_(_ratio(power, before)).addcdiv_(residual, scale)
        tick(step.numel() * len(hessian))
    return weight


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient; zero where there is nothing to divide by."""
    return torch.where(denominator > 0, numerator / denominator, torch.zeros_like(numerator))
