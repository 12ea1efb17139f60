"""``WeightView``: the weights of a checkpoint as one particular graph stores them.

The quantized view keeps codes as they are and quantizes embedding and head; the float view, which the proof
builds on, is the same checkpoint with everything dequantized.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from ...compress.anatomy import Anatomy
from ...compress.qtensor import QTensor
from ...compress.scheme import Scheme


class Source(Protocol):
    """What the builders need of :class:`edgepress.compress.weights.WeightSource`."""

    anatomy: Anatomy
    schemes: dict[str, Scheme]
    shapes: dict[str, tuple[int, ...]]
    embedding_scheme: Scheme | None

    def linear(self, name: str) -> QTensor | Tensor: ...

    def dense(self, name: str) -> Tensor: ...

    def bias(self, name: str) -> Tensor | None: ...

    def tensor(self, name: str) -> Tensor: ...

    def table(self, name: str) -> QTensor | Tensor: ...


class WeightView:
    """``source`` with its schemes, or (``as_float``) dequantized."""

    def __init__(self, source: Source, *, as_float: bool = False) -> None:
        self.source, self.as_float = source, as_float
        self.anatomy = source.anatomy
        self.embedding_scheme = None if as_float else source.embedding_scheme
        self._last: tuple[str, QTensor] | None = None

    def scheme(self, linear: str) -> Scheme | None:
        """How the linear module is stored; None is float32."""
        return None if self.as_float else self.source.schemes.get(linear)

    def shape(self, name: str) -> tuple[int, ...]:
        """Logical shape of a tensor."""
        return self.source.shapes[name]

    def has(self, name: str) -> bool:
        """Whether the checkpoint stores the tensor."""
        return name in self.source.shapes

    def tensor(self, name: str) -> Tensor:
        """A float32 tensor by full name."""
        return self.source.tensor(name)

    def quantized(self, linear: str) -> QTensor:
        """The codes of a quantized linear. The last one is kept: codes, scales and zero points are written in
        turn.
        """
        return self._kept(linear, self.source.linear)

    def quantized_table(self, module: str) -> QTensor:
        """Embedding or head ``module``, rounded to the codes of ``embedding_scheme``."""
        return self._kept(module, self.source.table)

    def _kept(self, module: str, read: Callable[[str], QTensor | Tensor]) -> QTensor:
        if self._last is None or self._last[0] != module:
            weight = read(module)
            assert isinstance(weight, QTensor), f"{module} has a scheme and no codes"
            self._last = (module, weight)
        return self._last[1]
