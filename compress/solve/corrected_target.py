"""The weight that makes up for the error of earlier layers: the target of a correcting quantization.

Earlier layers are compressed, so that a layer sees inputs ``x`` where the original model had ``x̃``. Wanted
is ``E‖W x̃ − Q x‖²`` least, as in Li et al. 2025, "GPTAQ: Efficient Finetuning-Free Quantization for
Asymmetric Calibration", arXiv 2504.02692, and Zhang et al. 2025, "Qronos: Correcting the Past by Shaping
the Future in Post-Training Quantization", arXiv 2505.11695. With ``G = E[x xᵀ]`` and ``C = E[(x̃ − x) xᵀ]``
it is, but for a constant, the plain objective ``tr((W* − Q) G (W* − Q)ᵀ)`` around the least-squares weight
``W* = W + W C G⁻¹``. So every solver of the plain problem solves this one; GPTAQ's recursion is the same
correction made a column at a time, where a column already quantized can no longer take its part.

``x`` must be what the layer will read, with the earlier layers of its own block compressed too: against
inputs from before that, it makes up once more for what they have made up for, and overshoots.

What the calibration tokens tell of ``C`` is partly chance: an error that has nothing to do with ``x`` seems
explained by it to a share of ``in`` over the number of tokens, all other tokens are made worse by as much,
and from block to block that grows. So what is predicted of each channel's error is shrunk to the share that
two halves of the tokens agree on: with ``C_A`` and ``C_B`` of the halves, the diagonal of ``C_A G⁻¹ C_Bᵀ``,
in which chance has no part, over that of ``C G⁻¹ Cᵀ``. On SmolLM2 at three bits that leaves a KL of 0.40
where the whole correction leaves more than 0.44 and none 0.51; at eight bits, where almost all is chance,
none is best.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .damped_cholesky import InverseFactor

# The statistics of C.
HALVES = ("cross_gram_of_first_half", "cross_gram_of_second_half")


def corrected(
    weight: Tensor, inputs: Mapping[str, Tensor], factor: InverseFactor, order: Tensor, strength: float = 1.0
) -> Tensor:
    """``W + strength · W S C H⁻¹`` ``[out, in]`` for ``weight [out, in]``.

    ``inputs`` has the :data:`HALVES` of C, by which the diagonal S shrinks. ``factor`` is of H, the damped
    Gram with its channels in ``order [in]``: the damping holds the result to ``weight`` where the inputs tell
    little.
    """
    reverse = order.flip(0)
    first, second = (inputs[name][:, reverse] @ factor.lower.T for name in HALVES)
    whole = (first + second) / 2
    agreed, explained = (first * second).sum(1), whole.square().sum(1)
    kept = (agreed / explained.clamp(min=torch.finfo(torch.float32).tiny)).clamp(0, 1)
    result = weight.clone()
    result[:, reverse] += strength * ((weight * kept) @ whole @ factor.lower)
    return result
