"""The KL of labels by every form of head: how a text is pooled, a norm, one label or several."""

from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from edgepress.compress.model.anatomy import Classifier
from edgepress.compress.model.block_anatomy import Norm
from edgepress.compress.train.losses.objective import LabelDivergence
from torch import Tensor, nn

LENGTHS = (3, 1)  # of the texts; a third row has no token


class Head(nn.Module):
    """As transformers' classifiers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm, self.out = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def logits(self, states: Tensor, head: Classifier) -> Tensor:
        """``[texts, labels]``."""

        def of(rows: Tensor) -> Tensor:
            middle = nn.functional.gelu(self.dense(rows))
            found: Tensor = self.out(middle if head.norm is None else self.norm(middle))
            return found

        texts = torch.split(states, LENGTHS)
        if head.pooling == "late":
            return torch.stack([of(text).mean(0) for text in texts])
        return torch.stack([of(text[0] if head.pooling == "first" else text.mean(0)) for text in texts])


@pytest.mark.parametrize("pooling", ["first", "mean", "late"])
@pytest.mark.parametrize("norm", [None, Norm("norm", "layer", 1e-5)], ids=["plain", "normed"])
@pytest.mark.parametrize("several", [False, True])
def test_the_divergence_is_that_of_the_labels(
    pooling: Literal["first", "mean", "late"], norm: Norm | None, several: bool
) -> None:
    torch.manual_seed(0)
    model, mine, theirs = Head(), torch.randn(4, 8), torch.randn(4, 8)
    head = Classifier("dense", "gelu", "out", ("a", "b", "c"), norm=norm, pooling=pooling, several=several)
    anatomy: Any = SimpleNamespace(classifier=head, renamed=())
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    term, batch = LabelDivergence(anatomy, anatomy), SimpleNamespace(attention_mask=mask, tokens=4)
    known = term.answers(model, {"last": theirs}, batch, slice(0, 4))  # type: ignore[arg-type]
    found = term.losses(model, {"last": mine}, known, batch)  # type: ignore[arg-type]
    before, after = (model.logits(states, head) for states in (theirs, mine))
    if several:
        p, q = before.sigmoid(), after.sigmoid()
        want = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(-1)
    else:
        want = (before.softmax(-1) * (before.log_softmax(-1) - after.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(found, want * (4 / len(LENGTHS)), rtol=1e-4, atol=1e-6)
