"""What stands around the blocks of a model: what tokens go through before the first, the distances that all
read, and what becomes of the last states, logits or labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .block_anatomy import Norm

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Classifier:
    """``out(norm(activation(dense(x))))``, or ``out(x)``, of last states ``x``: each token's, or a text's.

    Attributes:
        dense: the full name of the linear module ``[hidden, hidden]`` that comes first, or None.
        out: the full name of the linear module ``[labels, hidden]`` that gives the logits.
        labels: their names, in the order of the logits; a single one is that of a reranker, whose logit says
            how well two texts go together.
        labelled: what has labels; of a ``span``, the answer to a question, one logit is its first token's and
            one its last's.
        pooling: what a text's ``x`` is: the state of its first token, the mean of all, or (``late``) the
            head reads each token, and the text's logits are the mean; of an image also (DINOv2) its class
            token's beside the mean of the others.
        several: whether each label of a text holds or not, whatever the others do.
    """

    dense: str | None
    activation: Literal["tanh", "relu", "gelu"]
    out: str
    labels: tuple[str, ...]
    norm: Norm | None = None
    labelled: Literal["text", "token", "span", "image"] = "text"
    pooling: Literal["first", "mean", "late", "first_and_mean"] = "first"
    several: bool = False

    @property
    def by_token(self) -> bool:
        """Whether each token has logits, and not the text or image."""
        return self.labelled in ("token", "span")

    @property
    def one_a_text(self) -> bool:
        """Whether a text has one label."""
        return not self.by_token and not self.several

    def modules(self) -> tuple[str, ...]:
        """The full names of its linear modules."""
        return (self.out,) if self.dense is None else (self.dense, self.out)


@dataclass(frozen=True)
class RelativePositions:
    """Vectors of distances, which q and k of every block read as they do states: a score is
    ``q · k + q · k' + q' · k``, with ``q'`` and ``k'`` of the distance from key to query (He et al., DeBERTa,
    2020, arXiv 2006.03654).

    Attributes:
        table: their module ``[2 · span, hidden]``; distance 0 is row ``span``.
        norm: of its rows, or None.
        farthest: where set, distances beyond half of ``span`` share rows, the more the farther they are, up
            to this one; else each has its own, as far as there are rows.
    """

    table: str
    span: int
    norm: Norm | None = None
    farthest: int | None = None


@dataclass(frozen=True)
class LogitForm:
    """``softcap · tanh(scale · x / softcap)`` of a head's products ``x``; ``scale · x`` without a softcap."""

    scale: float = 1.0
    softcap: float | None = None

    def of(self, products: Tensor) -> Tensor:
        """Logits ``[…, vocab]``."""
        scaled = products if self.scale == 1 else products * self.scale
        return scaled if self.softcap is None else self.softcap * (scaled / self.softcap).tanh()

    def gradient(self, logits: Tensor, gradient: Tensor) -> Tensor:
        """The gradient at the products, of that at the ``logits`` they gave."""
        if self.softcap is not None:
            gradient = gradient * (1 - (logits / self.softcap).square())
        return gradient if self.scale == 1 else gradient * self.scale


@dataclass(frozen=True)
class DecoderEntry:
    """What the decoder of an encoder–decoder adds to its tokens before the first block: the table
    ``position_embedding``, or None, and a norm of the sum.
    """

    position_embedding: str | None
    embedding_norm: Norm | None
