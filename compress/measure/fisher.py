"""One backward pass from the last hidden states, along what the model itself would say, with observers on its
modules: what they add up from the gradients that arrive there is Fisher information.

For a decoder the loss is ``−log p(y)`` of a token ``y`` drawn from the model, so that half the mean square of
a change is nats of KL; for an encoder a random direction, so that the mean square is a squared relative
distance. The other files of this room say what is added up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...errors import CalibrationError
from ...terminal import Progress
from ..model.anatomy import Anatomy, module_name
from ..model.torch_model import load_model
from ..model.weights import WeightSource
from ..text.calibration import Calibration
from ..text.micro_batches import MicroBatch, first_tokens, micro_batches_of
from .precision import Precision, autocast
from .reading import last_states

_AT_ONCE = 128  # tokens whose logits are held at once

TakeGradient = Callable[[Tensor], None]


class Observer(Protocol):
    """Adds up something of one module; ``at_input``: the gradient is that at its input, not at its output."""

    at_input: bool

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        """Look at rows ``inputs [tokens, in]`` and ``outputs [tokens, out]``, ``real [tokens]`` of which are
        no padding; returns what takes their gradient, of the same shape, on the way back.
        """
        ...


@dataclass(frozen=True)
class FisherPass:
    """What a pass runs on: ``micro_batches`` of text through ``model``, whose weights do not learn."""

    model: nn.Module
    anatomy: Anatomy
    micro_batches: Sequence[MicroBatch]
    device: torch.device
    progress: Progress
    precision: Precision = "auto"
    seed: int = 0

    @classmethod
    def load(
        cls,
        source: WeightSource,
        calibration: Calibration,
        tokens: int,
        device: torch.device,
        progress: Progress,
        *,
        batch_tokens: int = 1024,
        precision: Precision = "auto",
        seed: int = 0,
    ) -> FisherPass:
        """The whole model of ``source`` on ``device``, and the first ``tokens`` of the text."""
        model = load_model(source, device=device, cache=False).requires_grad_(False)
        micro_batches = first_tokens(micro_batches_of(calibration, batch_tokens), tokens)
        return cls(model, source.anatomy, micro_batches, device, progress, precision, seed)

    def submodule(self, name: str) -> nn.Module:
        """The module with the stored ``name``."""
        return self.model.get_submodule(module_name(self.anatomy, name))

    def run(self, title: str, observers: Mapping[str, Observer]) -> float:
        """Send every micro-batch forward and back past ``observers``, each at the module with its name;
        returns what a sum of squares is multiplied by to be damage a token.

        Micro-batches that the model turns into NaN or infinity are not sent back.

        Raises:
            CalibrationError: all of them.
        """
        hooks = {name: _Hook(observer) for name, observer in observers.items()}
        handles: list[Any] = [
            self.submodule(name).register_forward_hook(hook) for name, hook in hooks.items()
        ]
        try:
            tokens = self._there_and_back(title, list(hooks.values()))
        finally:
            for handle in handles:
                handle.remove()
        if not tokens:
            raise CalibrationError(
                "the model turns every micro-batch of calibration text into NaN or infinity",
                fix="check the model with `edgepress inspect`, or calibrate on other text",
            )
        return (0.5 if self.anatomy.kind == "decoder" else 1.0) / tokens

    def _there_and_back(self, title: str, hooks: Sequence[_Hook]) -> int:
        # Gradients flow to the layers although no weight learns: the embedding table is a leaf.
        table = self.model.get_input_embeddings().weight.requires_grad_(True)  # type: ignore[operator]
        generator = torch.Generator(self.device).manual_seed(self.seed)
        tokens = 0
        with self.progress.task(title, len(self.micro_batches)) as task:
            for batch in self.micro_batches:
                real = batch.attention_mask.flatten().bool().to(self.device)
                for hook in hooks:
                    hook.real = real
                with autocast(self.precision, self.device):
                    rows = last_states(self.model, batch, self.device)
                task.advance(1)
                if not bool(torch.isfinite(rows).all()):
                    continue
                tokens += batch.tokens
                rows.backward(direction(self.model, self.anatomy, rows.detach(), generator))  # type: ignore[no-untyped-call]
                table.grad = None
        return tokens


class _Hook:
    """Shows an observer what goes through a module, and the gradient there once it arrives."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.real = torch.empty(0)

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        result: Tensor = output[0] if isinstance(output, tuple) else output
        take = self.observer.observe(_rows(inputs[0].detach()), _rows(result.detach()), self.real)
        watched = inputs[0] if self.observer.at_input else result
        watched.register_hook(lambda gradient: take(_rows(gradient)))  # type: ignore[no-untyped-call]


def _rows(values: Tensor) -> Tensor:
    return values.flatten(0, -2)


def direction(model: nn.Module, anatomy: Anatomy, rows: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient at the last hidden states ``rows [tokens, hidden]`` of what is drawn."""
    if anatomy.kind == "encoder":
        length = rows.to(torch.float32).norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return torch.randn(rows.shape, generator=generator, device=rows.device).div(length).to(rows.dtype)
    states = rows.to(torch.float32).requires_grad_(True)
    for part in torch.split(states, _AT_ONCE):
        with torch.enable_grad():
            logits = model.get_output_embeddings()(part)  # type: ignore[operator]
            if anatomy.logit_softcap is not None:
                logits = anatomy.logit_softcap * torch.tanh(logits / anatomy.logit_softcap)
            log_probabilities = torch.log_softmax(logits, -1)
            drawn = torch.multinomial(log_probabilities.detach().exp(), 1, generator=generator)
            log_probabilities.gather(-1, drawn).sum().backward()  # type: ignore[no-untyped-call]
    assert states.grad is not None
    return states.grad.to(rows.dtype)
