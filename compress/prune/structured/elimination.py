"""Which inputs of a linear can go at the least error of its output, when the others make up for it.

Hassibi & Stork 1993, "Second Order Derivatives for Network Pruning: Optimal Brain Surgeon", with whole
groups of columns in the place of single weights, as in Ling et al. 2024, "SlimGPT: Layer-wise Structured
Pruning for Large Language Models", arXiv 2412.18110. With ``G`` the Gram of the inputs, dropping the
columns ``S`` of ``W`` costs ``tr(W_S ((G⁻¹)_SS)⁻¹ W_Sᵀ)`` at best, which ``W − W_S ((G⁻¹)_SS)⁻¹ (G⁻¹)_S``
reaches. The units of least cost go, the inverse is updated, and the costs are found anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .part import columns_of


def removal_costs(weight: Tensor, inverse: Tensor, size: int) -> Tensor:
    """The least output error of dropping each unit of ``size`` columns alone ``[units]``.

    ``weight [out, in]``, ``inverse [in, in]`` of the Gram.
    """
    if size == 1:
        return weight.square().sum(0) / inverse.diagonal()
    units = weight.shape[1] // size
    blocks = inverse.view(units, size, units, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    parts = weight.T.reshape(units, size, -1)
    solved: Tensor = torch.linalg.solve(blocks, parts)
    return (solved * parts).sum((1, 2))


def least_of(scores: Tensor, partitions: int, count: int) -> Tensor:
    """The ``count`` units of lowest ``scores [units]`` in each of the ``partitions``, ties by position."""
    rows = scores.view(partitions, -1)
    first = torch.arange(partitions, device=scores.device).unsqueeze(1) * rows.shape[1]
    return (rows.sort(dim=1, stable=True).indices[:, :count] + first).flatten()


def eliminate(
    weight: Tensor, inverse: Tensor, size: int, partitions: int, rounds: Sequence[int]
) -> tuple[Tensor, list[float]]:
    """The units that are left ``[kept]``, ascending, when in each round so many go from every partition; and
    by how much each round raised the squared output error.

    ``weight [out, in]`` and ``inverse [in, in]`` are overwritten.
    """
    raised = []
    alive = torch.ones(weight.shape[1] // size, dtype=torch.bool, device=weight.device)
    for number in rounds:
        units = alive.nonzero().flatten()
        columns = columns_of(units, size)
        costs = torch.full(alive.shape, torch.inf, dtype=weight.dtype, device=weight.device)
        square = inverse if len(columns) == len(inverse) else inverse[columns][:, columns]
        costs[units] = removal_costs(weight[:, columns], square, size)
        gone = least_of(costs, partitions, number)
        alive[gone] = False
        gone = columns_of(gone, size)
        rows = inverse[gone]
        solved = torch.linalg.solve(rows[:, gone], rows)
        lost = weight[:, gone]
        raised.append(float((torch.linalg.solve(rows[:, gone], lost.T) * lost.T).sum()))
        weight -= lost @ solved
        inverse -= rows.T @ solved
    return alive.nonzero().flatten(), raised


def in_rounds(total: int, rounds: int) -> list[int]:
    """``total`` removals in at most ``rounds`` rounds, as even as can be."""
    rounds = max(1, min(rounds, total))
    return [total // rounds + (index < total % rounds) for index in range(rounds)]
