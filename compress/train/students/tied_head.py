"""``TiedHead``: a head whose weight is that of the embedding, also while the embedding learns."""

from __future__ import annotations

from torch import Tensor, nn


class TiedHead(nn.Module):
    """States ``[..., hidden]`` to logits ``[..., vocab]`` by the weight of ``embedding [vocab, hidden]``, as
    it is at the moment.
    """

    def __init__(self, embedding: nn.Module, bias: Tensor | None = None) -> None:
        super().__init__()
        self._embedding = (embedding,)  # in a tuple: the module has its place in the model already
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """``[vocab, hidden]``."""
        return self._embedding[0].weight  # type: ignore[return-value]

    def forward(self, states: Tensor) -> Tensor:
        return nn.functional.linear(states, self.weight, self.bias)
