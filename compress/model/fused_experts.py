"""Parameters that transformers keeps in one tensor and checkpoints store in many: experts of a mixture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import Anatomy


@dataclass(frozen=True)
class Joined:
    """``rows``: for each expert the stored tensors that follow one another along their first axis; or the one
    tensor that is stored under another name.
    """

    rows: tuple[tuple[str, ...], ...]
    stacked: bool = True

    def read(self, tensor: Callable[[str], Tensor]) -> Tensor:
        """The parameter, from what ``tensor`` reads."""
        if not self.stacked:
            return tensor(self.rows[0][0])
        first = torch.cat([tensor(name) for name in self.rows[0]])
        whole = torch.empty(len(self.rows), *first.shape, dtype=first.dtype)
        for index, names in enumerate(self.rows):
            torch.cat([tensor(name) for name in names], out=whole[index])
        return whole


def joined_parameters(anatomy: Anatomy) -> Mapping[str, Joined]:
    """By the name of the parameter in transformers' model."""
    found = {}
    for block in anatomy.blocks:
        experts = block.experts
        if experts is not None:
            stored = [experts.stored(index) for index in range(experts.count)]
            found[f"{experts.built}.experts.gate_up_proj"] = Joined(tuple(names[:2] for names in stored))
            found[f"{experts.built}.experts.down_proj"] = Joined(tuple(names[2:] for names in stored))
            found[f"{experts.built}.gate.weight"] = Joined(((f"{experts.router}.weight",),), stacked=False)
    return found
