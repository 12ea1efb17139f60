"""What stands around the blocks of a model: what tokens go through before the first, the distances that all
read, and what becomes of the last states, logits or labels.

``Patches``: how an encoder of images reads them; and ``Tower``: what one of two encoders, of images and of
texts, makes of its states to compare them with the other's.
"""

from __future__ import annotations

from collections.abc import Iterable
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


@dataclass(frozen=True)
class Patches:
    """How an image becomes the states that the first block reads: a convolution makes one of each square,
    they follow a class token where there is one, and positions are added.

    Attributes:
        embedder: the module that all of it is in.
        projection: the convolution ``[hidden, 3, side, side]``.
        side: of a square, in pixels.
        image: height and width of the images, in pixels.
        class_token: the tensor of so many numbers as ``hidden``; or None.
        positions: the tensor whose last two dimensions are ``[tokens, hidden]``.
        grid: rows and columns of squares that it is for.
        interpolates: images of other sizes are read too, with positions in between.
    """

    embedder: str
    projection: str
    side: int
    image: tuple[int, int]
    class_token: str | None
    positions: str
    grid: tuple[int, int]
    interpolates: bool = False

    @property
    def tokens(self) -> int:
        """How many states an image has."""
        height, width = (size // self.side for size in self.image)
        return height * width + (self.class_token is not None)


@dataclass(frozen=True)
class Tower:
    """What becomes of the last states of one of two encoders: a vector of length 1.

    Attributes:
        architecture: what the class of such a model is called in transformers.
        pooling: which state counts: that of the ``first`` place (a class token); of the ``end`` token, the
            first of several; of the ``last`` place; or what a learned query, the ``probe``, attends to.
        end: the id of the end token; None for the largest id in the text.
        norm: of what is pooled, or None.
        projection: the linear module that makes the vector of it, or None.
        probe: the module that has the query, its attention of so many ``heads``, a norm and an MLP.
        filled: texts are filled up to the longest with padding, which is read as tokens are.
    """

    architecture: str
    pooling: Literal["first", "end", "last", "probe"]
    end: int | None = None
    norm: Norm | None = None
    projection: str | None = None
    probe: str | None = None
    heads: int = 1
    filled: bool = False

    def linears(self) -> list[str]:
        """Its linear modules, which stay in float."""
        found = [] if self.projection is None else [self.projection]
        parts = () if self.probe is None else ("attention.out_proj", "mlp.fc1", "mlp.fc2")
        return [*found, *(f"{self.probe}.{part}" for part in parts)]

    def tensors(self, stored: Iterable[str]) -> list[str]:
        """Those of the names ``stored`` that it reads beside the last states."""
        modules = [self.projection, self.probe, None if self.norm is None else self.norm.name]
        prefixes = tuple(f"{module}." for module in modules if module is not None)
        return [name for name in stored if name.startswith(prefixes)] if prefixes else []
