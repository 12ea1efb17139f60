"""What passes may ask of the calibration activations, by name; each is computed once for all passes that ask.

A statistic sees the inputs of a linear as rows ``[tokens, in]`` and keeps a fixed amount of memory. One that
is ``paired`` also sees the rows that the original model has at the same place, or what the residual stream
lacks there.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

_STRIP = 512  # of a Gram: few beyond the diagonal, enough to keep a product busy


class Statistic(Protocol):
    """An accumulator over the input rows of one linear."""

    paired: bool

    def update(self, rows: Tensor, original: Tensor | None) -> None: ...

    def value(self) -> Tensor:
        """The mean over all rows seen; ends the accumulation."""


class Gram:
    """``gram``: mean over tokens of ``x xᵀ``, ``[in, in]`` float32, of which the part above the diagonal is
    computed, and a little more, in strips of rows. The Hessian of the layer's squared output error is twice
    this."""

    paired = False

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.total = torch.zeros(in_features, in_features, device=device)
        self.count = 0

    def _strips(self) -> Iterator[tuple[slice, slice, slice]]:
        """Rows of a strip, its columns from the diagonal on, and those after its square on the diagonal."""
        for start in range(0, len(self.total), _STRIP):
            yield slice(start, start + _STRIP), slice(start, None), slice(start + _STRIP, None)

    def update(self, rows: Tensor, original: Tensor | None) -> None:
        rows = rows.to(torch.float32)
        for strip, onward, _ in self._strips():
            self.total[strip, onward].addmm_(rows[:, strip].T, rows[:, onward])
        self.count += rows.shape[0]

    def value(self) -> Tensor:
        for strip, _, beyond in self._strips():
            self.total[beyond, strip] = self.total[strip, beyond].T
        return self.total.div_(max(self.count, 1))


def mean_square_of_outputs(weight: Tensor, gram: Tensor) -> float:
    """``E‖W x‖²``, the sum over the rows of ``weight [rows, in]``, for inputs with the ``gram [in, in]``: of
    which the part above the diagonal is read, and a little more, in strips of columns.
    """
    total = 0.0
    for start in range(0, len(gram), _STRIP):
        strip = slice(start, start + _STRIP)
        product = weight[:, strip] @ gram[strip, strip]
        if start:
            product.addmm_(weight[:, :start], gram[:start, strip], alpha=2)
        total += float(product.mul_(weight[:, strip]).sum())
    return total


class Mean:
    """``mean``: mean over tokens of ``x`` per input channel, ``[in]`` float32."""

    paired = False

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.total = torch.zeros(in_features, device=device)
        self.count = 0

    def update(self, rows: Tensor, original: Tensor | None) -> None:
        self.total += self.terms(rows.to(torch.float32)).sum(0)
        self.count += rows.shape[0]

    @staticmethod
    def terms(rows: Tensor) -> Tensor:
        """What is averaged, ``[tokens, in]``."""
        return rows

    def value(self) -> Tensor:
        return self.total / max(self.count, 1)


class AbsMean(Mean):
    """``absmean``: mean over tokens of ``|x|`` per input channel, ``[in]`` float32."""

    @staticmethod
    def terms(rows: Tensor) -> Tensor:
        return rows.abs()


class MeanSquare(Mean):
    """``meansquare``: mean over tokens of ``x²`` per input channel, ``[in]`` float32: the Gram's diagonal."""

    @staticmethod
    def terms(rows: Tensor) -> Tensor:
        return rows.square()


class AbsMax:
    """``absmax``: largest ``|x|`` per input channel, ``[in]`` float32."""

    paired = False

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.peak = torch.zeros(in_features, device=device)

    def update(self, rows: Tensor, original: Tensor | None) -> None:
        if len(rows):
            torch.maximum(self.peak, rows.to(torch.float32).abs().amax(0), out=self.peak)

    def value(self) -> Tensor:
        return self.peak


class Tokens:
    """``tokens``: how many rows there were, ``[1]``; of an expert's layers, the tokens that went to it."""

    paired = False

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.count = 0

    def update(self, rows: Tensor, original: Tensor | None) -> None:
        self.count += len(rows)

    def value(self) -> Tensor:
        return torch.tensor([float(self.count)])


class SampledRows:
    """``sample``: some of the rows as they are, evenly from each micro-batch seen, ``[rows, in]`` float32."""

    paired = False
    ROWS = 512
    _OF_A_PIECE = 128

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.rows = [torch.zeros(0, in_features, device=device)]
        self.count = 0

    def update(self, rows: Tensor, original: Tensor | None) -> None:
        wanted = min(self._OF_A_PIECE, self.ROWS - self.count, len(rows))
        if wanted > 0:
            chosen = torch.arange(wanted, device=rows.device) * len(rows) // wanted
            self.rows.append(rows[chosen].to(torch.float32))
            self.count += wanted

    def value(self) -> Tensor:
        return torch.cat(self.rows)


class CrossGramOfFirstHalf:
    """``cross_gram_of_first_half``: mean over tokens of ``(x̃ − x) xᵀ``, ``[in, in]`` float32, where ``x̃`` are
    the original model's inputs and ``x`` those of the partly compressed one; of the first half of the rows of
    every micro-batch. The second half is of other sequences: what is found in one is checked in the other."""

    paired = True
    SECOND = False

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.total = torch.zeros(in_features, in_features, device=device)
        self.count = 0

    def update(self, rows: Tensor, original: Tensor | None) -> None:
        assert original is not None
        self.add(rows, original.to(torch.float32) - rows)

    def add(self, rows: Tensor, error: Tensor) -> None:
        """``error [tokens, channels]`` beside the ``rows [tokens, in]``."""
        half = (len(rows) + 1) // 2
        part = slice(half, None) if self.SECOND else slice(half)
        self.total.addmm_(error[part].T, rows[part].to(torch.float32))
        self.count += len(rows[part])

    def value(self) -> Tensor:
        return self.total.div_(max(self.count, 1))


class CrossGramOfSecondHalf(CrossGramOfFirstHalf):
    """``cross_gram_of_second_half``: as ``cross_gram_of_first_half``, of the other half."""

    SECOND = True


class ResidualCrossGramOfFirstHalf(CrossGramOfFirstHalf):
    """``residual_cross_gram_of_first_half``: mean over tokens of ``(r̃ − r) xᵀ``, ``[hidden, in]`` float32,
    where ``x`` are the inputs of a linear that adds to the residual stream, ``r`` what it adds to and ``r̃``
    what that is in the original model. Halves as in ``cross_gram_of_first_half``."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        super().__init__(0, device)

    def update(self, rows: Tensor, original: Tensor | None) -> None:
        """``original [tokens, hidden]`` is ``r̃ − r``."""
        assert original is not None
        if not len(self.total):
            self.total = self.total.new_zeros(original.shape[1], rows.shape[1])
        self.add(rows, original)


class ResidualCrossGramOfSecondHalf(ResidualCrossGramOfFirstHalf):
    """``residual_cross_gram_of_second_half``: as ``residual_cross_gram_of_first_half``, of the other half."""

    SECOND = True


STATISTICS: dict[str, Callable[[int, torch.device], Statistic]] = {
    "gram": Gram,
    "absmean": AbsMean,
    "mean": Mean,
    "meansquare": MeanSquare,
    "absmax": AbsMax,
    "sample": SampledRows,
    "tokens": Tokens,
    "cross_gram_of_first_half": CrossGramOfFirstHalf,
    "cross_gram_of_second_half": CrossGramOfSecondHalf,
    "residual_cross_gram_of_first_half": ResidualCrossGramOfFirstHalf,
    "residual_cross_gram_of_second_half": ResidualCrossGramOfSecondHalf,
}


def _row(in_features: int) -> int:
    return 4 * in_features


def _square(in_features: int) -> int:
    return 4 * in_features**2


# Bytes a statistic holds for ``in`` input channels: the plan predicts memory from it.
STATISTIC_BYTES: dict[str, Callable[[int], int]] = {
    **dict.fromkeys(("absmean", "mean", "meansquare", "absmax"), _row),
    **dict.fromkeys(("gram", "cross_gram_of_first_half", "cross_gram_of_second_half"), _square),
    "tokens": lambda in_features: 4,
    "sample": lambda in_features: SampledRows.ROWS * _row(in_features),
}
