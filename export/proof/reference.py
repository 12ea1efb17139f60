"""The torch side of an encoder's proof: the whole checkpoint as transformers runs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...compress.model.anatomy import module_name
from ...compress.model.torch_model import label_logits as logits_of
from ...compress.model.torch_model import (
    load_model,
    round_inputs,
    round_tables,
    tower_vectors,
)
from ...compress.model.weights import WeightSource
from ...compress.numbers.fake_quant import TokenQuantLinear, unwrap


class Reference:
    """The checkpoint as one torch model, read once and changed from proof to proof.

    At first it is dequantized, with activations and embedding in float: ``model`` computes what a float graph
    does.
    """

    def __init__(self, source: WeightSource) -> None:
        self.source = source
        self.model = load_model(source, activations=False, cache=False)

    def tensor(self, name: str) -> torch.Tensor:
        """The stored tensor ``name`` in float32, as long as the model is not rounded."""
        return self.model.get_parameter(module_name(self.source.anatomy, name)).data

    def round(self) -> nn.Module:
        """The model as exports store it: embedding rounded, the activations of W8A8 layers too."""
        round_tables(self.model, self.source)
        round_inputs(self.model, self.source)
        return self.model

    def with_float_activations(self) -> nn.Module:
        """The model with rounded tables, and activations left in float again."""
        for name, module in list(self.model.named_modules()):
            if isinstance(module, TokenQuantLinear):
                unwrap(self.model, name)
        return self.model


@torch.no_grad()
def hidden_states(model: nn.Module, feeds: dict[str, Any]) -> torch.Tensor:
    """``[batch, seq, hidden]`` of an encoder's last layer."""
    tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
    return model.base_model(**tensors).last_hidden_state  # type: ignore[operator, no-any-return]


@torch.no_grad()
def vectors_of_tower(model: nn.Module, feeds: dict[str, Any]) -> torch.Tensor:
    """``[batch, size]`` of one of two encoders."""
    return tower_vectors(model(**{name: torch.from_numpy(value) for name, value in feeds.items()}))


@torch.no_grad()
def label_logits(model: nn.Module, feeds: dict[str, Any]) -> torch.Tensor:
    """``[batch, labels]`` of a classifier of texts, ``[batch, seq, labels]`` of one of tokens or spans."""
    tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
    return logits_of(model(**tensors))
