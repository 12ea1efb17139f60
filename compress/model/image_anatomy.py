"""``Patches``: how an encoder of images reads them; and ``Tower``: what one of two encoders, of images and of
texts, makes of its states to compare them with the other's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .block_anatomy import Norm


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
