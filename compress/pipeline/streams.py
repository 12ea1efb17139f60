"""``Stream``: the hidden states of one run of token batches through the model, on disk between two blocks.

The sweep carries several: the inputs of the partly compressed model, those of the original where a pass
compares with it, and the short probes. All are read a batch at a time, so that memory holds one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor

from .forward import Batch, without_spoilt


@dataclass(frozen=True)
class Entry:
    """What a batch keeps: the keyword arguments of each block, and the mask of its real tokens."""

    arguments: Sequence[Mapping[str, Any]]
    mask: Tensor | None


class Stream:
    """Batches at the entrance of any block; ``directory`` holds one folder a block.

    Args:
        entries: one a batch.
    """

    def __init__(self, directory: Path, entries: Sequence[Entry], device: torch.device) -> None:
        self.directory, self.entries, self.device = directory, entries, device

    def _folder(self, block: int) -> Path:
        return self.directory / f"{block:04d}"

    def write(self, block: int, number: int, hidden: Tensor) -> Path:
        """Make ``hidden [batch, tokens, hidden]`` the inputs of ``block`` for batch ``number``."""
        path = self._folder(block) / f"{number:05d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"hidden": hidden.cpu().contiguous()}, path)
        return path

    def batches(self, block: int) -> Iterator[Batch]:
        """The inputs of ``block``, one batch at a time; one past the last block, the outputs of that. Samples
        that hold NaN or infinity are masked: see :meth:`raw`.
        """
        yield from map(without_spoilt, self.raw(block))

    def raw(self, block: int) -> Iterator[Batch]:
        """:meth:`batches` as they are: a sample that is spoilt once stays so, since NaN only ever spreads."""
        for number, entry in enumerate(self.entries):
            data = (self._folder(block) / f"{number:05d}.safetensors").read_bytes()
            arguments = entry.arguments[block] if block < len(entry.arguments) else {}
            yield Batch(load_bytes(data)["hidden"].to(self.device), arguments, entry.mask)

    def drop(self, block: int) -> None:
        """Forget the inputs of ``block``."""
        shutil.rmtree(self._folder(block), ignore_errors=True)
