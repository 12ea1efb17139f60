"""The tensors that a form stores a linear in, looked at by their headers before any of them is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from ..header import TensorEntry

WORD = 32  # bits
WORDS = ("I32", "U32")
FLOATS = ("F16", "BF16", "F32")
_LOW = (1 << WORD) - 1


class Parts:
    """The stored tensors of the linear ``module``.

    Attributes:
        names: of those that were taken, in that order.
    """

    def __init__(self, module: str, tensors: Mapping[str, TensorEntry]) -> None:
        self.module, self.names = module, list[str]()
        self._tensors = tensors

    def __contains__(self, part: str) -> bool:
        return f"{self.module}.{part}" in self._tensors

    def take(self, part: str, types: tuple[str, ...], rank: int | None = 2) -> tuple[int, ...]:
        """The shape of the tensor ``part``, of ``rank`` dimensions, none of them 0."""
        name = f"{self.module}.{part}"
        if name not in self._tensors:
            raise CheckpointError(f"{self.module} has no {part}, which its form needs")
        entry = self._tensors[name]
        if entry.dtype not in types or 0 in entry.shape or rank not in (None, len(entry.shape)):
            wanted = "" if rank is None else f" with {rank} dimensions"
            raise CheckpointError(
                f"tensor {name!r} is {entry.dtype} of shape {list(entry.shape)}, "
                f"not {' or '.join(types)}{wanted}"
            )
        self.names.append(name)
        return entry.shape

    def entry(self, part: str) -> TensorEntry:
        """What the header says of a ``part`` that is there."""
        return self._tensors[f"{self.module}.{part}"]

    def refuse(self, why: str) -> CheckpointError:
        """The error for parts that do not fit each other."""
        shapes = ", ".join(
            f"{name.removeprefix(self.module + '.')} {list(self._tensors[name].shape)}" for name in self.names
        )
        return CheckpointError(f"{self.module} is stored in parts that do not fit: {shapes}", why=why)


def modules_with(part: str, tensors: Mapping[str, TensorEntry]) -> Iterator[str]:
    """The modules that have a stored tensor ``part``, in the order of the file."""
    for name in tensors:
        module, _, last = name.rpartition(".")
        if last == part and module:
            yield module


def whole(settings: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """The whole number ``key`` of quantization_config."""
    value = settings.get(key, default)
    if type(value) is not int:
        raise CheckpointError(f"quantization_config has {key} {value!r:.80}, which is no whole number")
    return value


def unsigned(words: Tensor) -> Tensor:
    """32-bit ``words`` as int64 from 0 on."""
    return words.to(torch.int64) & _LOW
