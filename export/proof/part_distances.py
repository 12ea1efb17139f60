"""How far one part of a graph is from torch's, and how far it may be: elementwise where nothing is rounded,
as a share of what the part adds where it is.

The bound of a value is that of its token: what the last digits of sums cost follows the part's own addition
to the token's states, and the states that it is added to, of which some tokens have very large ones.

What a proof part by part has found so far: the largest differences, and of the parts as they ship the
largest distance.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.build import GraphPart
from .distances import Floats, gate, noise_bound, rounded
from .part_graphs import PartRunner

RELATIVE, LAST_PLACES = 1e-5, 8
_LAST_PLACE = 2.0**-23
# What rounding activations may change of what a part adds, as a share of its length.
SHIPPED = 0.05
# Batch, tokens in the cache, new tokens.
Case = tuple[int, int, int]
FLOAT, CODES = "with float weights", "with quantized weights and float activations"


@dataclass(frozen=True)
class Expected:
    """What torch computes of a part.

    Attributes:
        ids: the tokens ``[rows, seq]``.
        inputs: in the part's order, each ``[rows, seq, …]``.
        outputs: the same.
        added: what each output has that the inputs had not; the output itself where that is all of it.
        beside: by the names of further inputs what they are given, ``[rows, …]``.
        lengths: the real tokens of each row, where a token's output follows from all of them.
    """

    ids: NDArray[np.int64]
    inputs: tuple[NDArray[Any], ...]
    outputs: tuple[Floats, ...]
    added: tuple[Floats, ...]
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    lengths: tuple[int, ...] | None = None

    def allowed(self, index: int) -> Floats:
        """:func:`allowed` of one output, ``[rows, seq]``."""
        return allowed(self.added[index], self.outputs[index])

    def real(self, values: NDArray[Any]) -> NDArray[Any]:
        """Those of ``values [rows, seq, …]`` that are of real tokens, ``[tokens, …]``."""
        lengths = self.lengths or (values.shape[1],) * len(values)
        return np.concatenate([row[:length] for row, length in zip(values, lengths, strict=True)])


@dataclass(frozen=True)
class Difference:
    """The largest difference of an output, the bound there, and the module whose output it is."""

    value: float
    bound: float
    module: str

    @property
    def share(self) -> float:
        """Of the bound."""
        return self.value / self.bound

    def described(self) -> dict[str, Any]:
        """For the manifest."""
        return {"max_abs_difference": rounded(self.value), "bound": rounded(self.bound), "at": self.module}


def largest_differences(runner: PartRunner, expected: Expected, cases: Sequence[Case]) -> list[Difference]:
    """Of each output the worst of all ``cases``. Rows of a text in both directions are as long as they are;
    of others, where there is no cache yet, the second one is half as long.
    """
    bounds = [expected.allowed(index) for index in range(len(expected.outputs))]
    worst = [Difference(0.0, 1.0, module_of(runner.part, index)) for index in range(len(bounds))]
    for batch, depth, new in cases:
        total = depth + new
        lengths = [new, max(1, new // 2), *[new] * batch][:batch] if depth == 0 else [total] * batch
        if expected.lengths is not None:
            lengths = list(expected.lengths[:batch])
        inputs = [value[:batch, :total] for value in expected.inputs]
        beside = {name: value[:batch] for name, value in expected.beside.items()}
        found = runner.run(expected.ids[:batch, :total], inputs, depth, lengths, beside)
        for index, values in enumerate(found):
            for row, valid in enumerate(lengths):
                tokens = slice(depth, valid)
                off = values[row, : valid - depth] - expected.outputs[index][row, tokens]
                here = largest(off, bounds[index][row, tokens], worst[index].module)
                worst[index] = worst[index] if here.share <= worst[index].share else here  # NaN stays
    return worst


def differences(
    graph: AbstractContextManager[PartRunner], expected: Expected, cases: Sequence[Case]
) -> list[Difference]:
    """:func:`largest_differences` over a part of a graph that is opened for it."""
    with graph as runner:
        return largest_differences(runner, expected, cases)


def allowed(added: Floats, output: Floats) -> Floats:
    """The largest difference ``[…]`` of each token that sums in another order explain, where a part ``added``
    so much to what it gives as ``output``, both ``[…, size]``.
    """
    bound = RELATIVE * np.abs(added).max(-1) + LAST_PLACES * _LAST_PLACE * np.abs(output).max(-1)
    return np.asarray(np.maximum(bound, np.finfo(np.float32).tiny), np.float32)


def largest(off: Floats, bounds: Floats, module: str) -> Difference:
    """The difference of the token of ``off [tokens, size]`` that is farthest from zero by its bound, of
    ``bounds [tokens]``.
    """
    sizes = np.abs(off).max(-1)
    at = int(np.argmax(sizes / bounds))
    return Difference(float(sizes[at]), float(bounds[at]), module)


def module_of(part: GraphPart, index: int) -> str:
    """The module whose output is the output ``index`` of ``part``."""
    return part.norm if index and part.norm is not None else part.name


def spread(expected: Expected, others: Iterable[Sequence[Floats]]) -> float:
    """The largest difference of ``others``, which are the same outputs with other roundings, as a share of
    its bound.
    """
    bounds = [expected.allowed(index) for index in range(len(expected.outputs))]
    return max(
        float((expected.real(np.abs(values - right).max(-1)) / expected.real(bound)).max())
        for outputs in others
        for values, right, bound in zip(outputs, expected.outputs, bounds, strict=True)
    )


def require_equal(difference: Difference, what: str, rounding: Callable[[], float]) -> Difference:
    """Refuse a ``difference`` beyond its bound, or where it is, beyond what ``rounding()``, a :func:`spread`,
    explains; returns it with the bound that holds.
    """
    bound = difference.bound
    if not difference.share <= 1:
        bound *= noise_bound(1.0, rounding())
    gate(f"the largest difference of {difference.module} {what}", difference.value, bound)
    return replace(difference, bound=bound)


def distances(found: Sequence[Floats], expected: Expected) -> list[float]:
    """Of each output the mean distance from torch's, as a share of what the part adds to a token."""
    return [
        float(np.mean(_length(values - right) / np.maximum(_length(added), np.finfo(np.float32).tiny)))
        for values, right, added in (
            map(expected.real, three) for three in zip(found, expected.outputs, expected.added, strict=True)
        )
    ]


def _length(values: Floats) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(values.astype(np.float64), axis=-1))


def require_near(
    found: Sequence[float], part: GraphPart, rounding: Callable[[], Sequence[float]]
) -> dict[str, Any]:
    """Refuse ``distances`` of a ``part`` as it ships beyond :data:`SHIPPED`, or beyond what ``rounding()``,
    the distances of torch with inputs in 8 bits, explains; returns the largest for the manifest.
    """
    bounds = [SHIPPED] * len(found)
    if not all(value <= SHIPPED for value in found):
        bounds = [noise_bound(SHIPPED, value) for value in rounding()]
    for index, (value, bound) in enumerate(zip(found, bounds, strict=True)):
        gate(f"the mean distance of {module_of(part, index)} as it ships", value, bound)
    at = int(np.argmax(np.divide(found, bounds)))
    return {"distance": rounded(found[at]), "bound": rounded(bounds[at]), "at": module_of(part, at)}


class PartFindings:
    """Holds what is found to its bounds, and keeps what came closest to them."""

    def __init__(self) -> None:
        self._worst: dict[str, Difference] = {}
        self._farthest: dict[str, Any] | None = None

    def equal(
        self, what: str, found: Sequence[Difference], rounding: Callable[[], float] = lambda: 0.0
    ) -> None:
        """The outputs of a part, in order: the block is named before the norm behind."""
        for one in found:
            held = require_equal(one, what, rounding)
            if what not in self._worst or held.share >= self._worst[what].share:
                self._worst[what] = held

    def near(self, found: Sequence[float], part: GraphPart, rounding: Callable[[], Sequence[float]]) -> None:
        """The distances of a ``part`` as it ships."""
        one = require_near(found, part, rounding)
        if self._farthest is None or _share(one) >= _share(self._farthest):
            self._farthest = one

    def described(self, parts: int, cases: int, *, rounds: bool) -> dict[str, Any]:
        """For the manifest, of so many ``parts`` and ``cases``; ``rounds``: anything in the graph does."""
        found = {"float": self._worst[FLOAT].described() | {"parts": parts, "cases": cases}}
        if rounds:
            found["codes"] = self._worst[CODES].described() | {"parts": parts}
        if self._farthest is not None:
            found["quantized"] = {"block": self._farthest}
        return found


def _share(found: dict[str, Any]) -> float:
    return float(found["distance"] / found["bound"])
