"""Divergences of two distributions, each given as log-probabilities over the same outcomes in the last
dimension.

Forward KL spreads the student over all that the teacher does, reverse KL draws it to what the teacher does
most (Gu et al. 2023, MiniLLM, arXiv 2306.08543); Jensen–Shannon lies between them and is bounded (Agarwal et
al. 2023, GKD, arXiv 2306.13649).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALLEST = 1e-7  # the least probability of all outcomes that are not kept apart


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """``KL(teacher ‖ student)`` in nats."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """``KL(student ‖ teacher)`` in nats."""
    return forward_kl(student, teacher)


def jensen_shannon(teacher: Tensor, student: Tensor) -> Tensor:
    """The mean KL of both from their mean, at most ``ln 2``."""
    middle = torch.logaddexp(teacher, student) - math.log(2)
    return 0.5 * (forward_kl(teacher, middle) + forward_kl(student, middle))


def with_rest(log_probabilities: Tensor) -> Tensor:
    """The given outcomes and one more that stands for all others. Merging outcomes never raises any of the
    divergences.
    """
    rest = (1 - log_probabilities.exp().sum(-1, keepdim=True)).clamp_min(_SMALLEST).log()
    return torch.cat([log_probabilities, rest], -1)
