"""One backward pass from the last hidden states, along what the model itself would say: whoever watches a
layer adds up squares of what arrives there, the diagonal of the Fisher information.

For a decoder the loss is ``−log p(y)`` of a token ``y`` drawn from the model, so that half the mean square is
nats of KL; for an encoder a random direction, so that the mean square is a squared relative distance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...errors import CalibrationError
from ...terminal import Progress
from ..model.anatomy import Anatomy
from ..text.micro_batches import MicroBatch
from .precision import Precision, autocast
from .reading import last_states

_AT_ONCE = 128  # tokens whose logits are held at once


def fisher_pass(
    model: nn.Module,
    anatomy: Anatomy,
    micro_batches: Sequence[MicroBatch],
    device: torch.device,
    progress: Progress,
    title: str,
    *,
    precision: Precision = "auto",
    seed: int = 0,
    before: Callable[[MicroBatch], None] = lambda _: None,
) -> float:
    """Send every micro-batch forward and back; returns what a sum of squares is multiplied by to be damage a
    token.

    Micro-batches that the model turns into NaN or infinity are not sent back. ``before`` is called ahead of
    each.

    Raises:
        CalibrationError: all of them.
    """
    # Gradients flow to the layers although no weight learns: the entrance of the model is a leaf.
    table = model.get_input_embeddings().weight.requires_grad_(True)  # type: ignore[operator]
    generator = torch.Generator(device).manual_seed(seed)
    tokens = 0
    with progress.task(title, len(micro_batches)) as task:
        for batch in micro_batches:
            before(batch)
            with autocast(precision, device):
                rows = last_states(model, batch, device)
            task.advance(1)
            if not bool(torch.isfinite(rows).all()):
                continue
            tokens += batch.tokens
            rows.backward(direction(model, anatomy, rows.detach(), generator))  # type: ignore[no-untyped-call]
            table.grad = None
    if not tokens:
        raise CalibrationError(
            "the model turns every micro-batch of calibration text into NaN or infinity",
            fix="check the model with `edgepress inspect`, or calibrate on other text",
        )
    return (0.5 if anatomy.kind == "decoder" else 1.0) / tokens


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
