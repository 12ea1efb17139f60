"""What rounding each layer costs the whole model, estimated from gradients: one backward pass for all layers.

To second order, a small change of one layer moves the output distribution by ``KL ≈ ½ E⟨∇ log p(y), ΔW⟩²``
with ``y`` drawn from the model itself: the Fisher metric (Martens 2014, arXiv 1412.1193; for bit allocation
Dong et al. 2019, arXiv 1905.03696). The inner product is ``Σ_t d_tᵀ ΔW x_t`` over the tokens ``t`` of a layer
with inputs ``x`` and gradients ``d`` at its output; as an estimate of little variance the terms are squared
one by one. For an encoder the random direction of a Gaussian takes the place of ``∇ log p(y)``, which gives
the squared relative distance of the hidden states instead of the KL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CalibrationError
from ...terminal import Progress
from ..anatomy import Anatomy
from ..qtensor import QTensor
from ..skeleton import module_name
from .pieces import Piece
from .precision import Precision, autocast
from .reading import last_states

_AT_ONCE = 128  # tokens whose logits are held at once


class _Felt(torch.autograd.Function):
    """A product that, on the way back, adds up what each of some other weights would have changed."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, others: list[QTensor], costs: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.others, ctx.costs = others, costs
        return rows @ weight.to(rows.dtype).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows, weight = ctx.saved_tensors
        for index, other in enumerate(ctx.others):
            change = (other.dequantize() - weight).to(rows.dtype)
            ctx.costs[index] += (gradient * (rows @ change.T)).sum(-1).to(torch.float32).square().sum()
        return gradient @ weight.to(gradient.dtype), None, None, None


class _Feeling(nn.Module):
    """A linear in whose place ``others`` might stand; ``costs [others]`` is the sum over all tokens seen."""

    def __init__(self, linear: nn.Module, others: list[QTensor]) -> None:
        super().__init__()
        self.linear, self.others = linear, others
        self.costs = torch.zeros(len(others), device=linear.get_parameter("weight").device)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        rows = x.reshape(-1, x.shape[-1])
        weight = self.linear.get_parameter("weight")
        out = _Felt.apply(rows, weight, self.others, self.costs)  # type: ignore[no-untyped-call]
        bias = self.linear.bias
        if bias is not None:
            out = out + bias.to(out.dtype)
        return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def sensitivity(
    model: nn.Module,
    anatomy: Anatomy,
    others: Mapping[str, list[QTensor]],
    pieces: Sequence[Piece],
    device: torch.device,
    progress: Progress,
    *,
    precision: Precision = "auto",
    seed: int = 0,
) -> dict[str, list[float]]:
    """By linear: the estimated damage a token (nats of KL, or squared relative distance) of each of
    ``others[name]`` in its place.

    ``model`` is changed: its linears named in ``others`` are wrapped. Pieces that it turns into NaN or
    infinity are left out.

    Raises:
        CalibrationError: all of them.
    """
    felt = {}
    for name, candidates in others.items():
        path = module_name(anatomy, name)
        felt[name] = _Feeling(model.get_submodule(path), candidates)
        model.set_submodule(path, felt[name])
    # Gradients flow to the layers although no weight learns: the entrance of the model is a leaf.
    model.get_input_embeddings().weight.requires_grad_(True)  # type: ignore[operator]
    generator = torch.Generator(device).manual_seed(seed)
    tokens = 0
    with progress.task("measuring layers", len(pieces)) as task:
        for piece in pieces:
            with autocast(precision, device):
                rows = last_states(model, piece, device)
            task.advance(1)
            if not bool(torch.isfinite(rows).all()):
                continue
            tokens += piece.tokens
            rows.backward(direction(model, anatomy, rows.detach(), generator))  # type: ignore[no-untyped-call]
            model.get_input_embeddings().weight.grad = None  # type: ignore[operator]
    if not tokens:
        raise CalibrationError(
            "the model turns every piece of calibration text into NaN or infinity",
            fix="check the model with `edgepress inspect`, or calibrate on other text",
        )
    share = 0.5 if anatomy.kind == "decoder" else 1.0
    return {name: (share * module.costs / tokens).tolist() for name, module in felt.items()}


def direction(model: nn.Module, anatomy: Anatomy, rows: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient at the last hidden states ``rows [tokens, hidden]`` of what is drawn."""
    if anatomy.kind == "encoder":
        length = rows.to(torch.float32).norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return torch.randn(rows.shape, generator=generator, device=rows.device).div(length).to(rows.dtype)
    entrance = rows.to(torch.float32).requires_grad_(True)
    for part in torch.split(entrance, _AT_ONCE):
        with torch.enable_grad():
            logits = model.get_output_embeddings()(part)  # type: ignore[operator]
            if anatomy.logit_softcap is not None:
                logits = anatomy.logit_softcap * torch.tanh(logits / anatomy.logit_softcap)
            log_probabilities = torch.log_softmax(logits, -1)
            drawn = torch.multinomial(log_probabilities.detach().exp(), 1, generator=generator)
            log_probabilities.gather(-1, drawn).sum().backward()  # type: ignore[no-untyped-call]
    assert entrance.grad is not None
    return entrance.grad.to(rows.dtype)
