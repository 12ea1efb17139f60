"""What transformers' encoders make of a batch: states, vectors and labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...compress.model.torch_model import label_logits as logits_of
from ...compress.model.torch_model import tower_vectors


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
