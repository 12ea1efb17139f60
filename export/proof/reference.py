"""The torch side of a proof: the checkpoint as transformers runs it, in numpy's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.hooks import RemovableHandle

from ...compress.model.anatomy import module_name
from ...compress.model.torch_model import load_model, round_cache, round_inputs, round_tables
from ...compress.model.weights import WeightSource
from ...compress.numbers.fake_quant import TokenQuantLinear, unwrap, wrap

Floats = NDArray[np.float32]
# Passes with a shaken last digit, and what that is of a float32 just above a power of two.
SHAKES = 8
_LAST_PLACE = 2.0**-23


class Reference:
    """The checkpoint as one torch model, read once and changed from proof to proof.

    At first it is dequantized, with activations, cache, embedding and head in float: ``model`` computes what
    a float graph does.
    """

    def __init__(self, source: WeightSource) -> None:
        self.source = source
        self.model = load_model(source, activations=False, cache=False)
        self._cache: list[RemovableHandle] = []

    def tensor(self, name: str) -> torch.Tensor:
        """The stored tensor ``name`` in float32, as long as the model is not rounded."""
        return self.model.get_parameter(module_name(self.source.anatomy, name)).data

    def round(self, *, cache: bool = False) -> nn.Module:
        """The model as exports store it: embedding and head rounded, the activations of W8A8 layers too, and
        keys and values as a quantized ``cache`` returns them.
        """
        round_tables(self.model, self.source)
        round_inputs(self.model, self.source)
        if cache:
            self._cache = round_cache(self.model, self.source)
        return self.model

    def with_float_activations(self) -> nn.Module:
        """The model with rounded tables, and activations and cache left in float again."""
        for handle in self._cache:
            handle.remove()
        for name, module in list(self.model.named_modules()):
            if isinstance(module, TokenQuantLinear):
                unwrap(self.model, name)
        return self.model


def with_rounded_activations(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """``model``, changed to round the inputs of the linears ``names`` to 8 bits per token."""
    for name in names:
        wrap(model, name)
    return model


@torch.no_grad()
def logits(model: nn.Module, ids: NDArray[np.int64]) -> Floats:
    """``[batch, seq, vocab]`` at every position, a row at a time to bound the memory."""
    parts = [model(torch.from_numpy(row[None]), use_cache=False).logits for row in ids]
    return np.concatenate([part.numpy() for part in parts])


def precise_logits(model: nn.Module, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """:func:`logits` computed in float64; the model is float32 again afterwards, as it was."""
    try:
        return logits(model.double(), ids).astype(np.float64)
    finally:
        model.float()


def shaken_logits(model: nn.Module, ids: NDArray[np.int64], seed: int) -> Floats:
    """:func:`logits` where every module's output is off by up to one unit in its last place, at random."""
    generator = torch.Generator().manual_seed(seed)

    def shake(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not isinstance(output, torch.Tensor):
            return None
        return output * (1 + _LAST_PLACE * (2 * torch.rand(output.shape, generator=generator) - 1))

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(shake) for module in leaves]
    try:
        return logits(model, ids)
    finally:
        for hook in hooks:
            hook.remove()


def float32_rounding(model: nn.Module, ids: NDArray[np.int64], reference: Floats) -> float:
    """How far another program that is right may be from the logits ``reference`` of ``model``, at most.

    The error of one program is one sample, and where a model amplifies it samples differ ten times: it is the
    largest of torch's own, against float64, and of what :data:`SHAKES` of the last digit do.
    """
    worst = float(np.abs(precise_logits(model, ids) - reference).max())
    for seed in range(SHAKES):
        worst = float(np.max([worst, np.abs(shaken_logits(model, ids, seed) - reference).max()]))
    return worst


@torch.no_grad()
def hidden_states(model: nn.Module, feeds: dict[str, Any]) -> torch.Tensor:
    """``[batch, seq, hidden]`` of an encoder's last layer."""
    tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
    return model.base_model(**tensors).last_hidden_state  # type: ignore[operator, no-any-return]


@torch.no_grad()
def label_logits(model: nn.Module, feeds: dict[str, Any]) -> torch.Tensor:
    """``[batch, labels]`` of a classifier of texts."""
    tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
    return model(**tensors).logits  # type: ignore[no-any-return]
