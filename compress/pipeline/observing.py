"""Showing observers what goes through the modules of a block, and the gradients there as they come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..measure.fisher import Observer
from ..model.block_anatomy import BlockAnatomy
from ..model.skeleton import Skeleton
from .capture import MEMORY
from .forward import Batch


@contextmanager
def observed(
    skeleton: Skeleton, observers: Mapping[str, Observer], block: BlockAnatomy
) -> Iterator[Callable[[Batch], None]]:
    """Each of ``observers`` at its module of ``block``, for as long as the context lasts; what is yielded
    tells them which batch comes.
    """
    cross = () if block.cross is None else (block.cross.k.name, block.cross.v.name)
    hooks = [_Hook(observer, of_memory=observer.module in cross) for observer in observers.values()]
    handles = [skeleton.submodule(hook.observer.module).register_forward_hook(hook) for hook in hooks]
    try:
        yield lambda batch: _tell(hooks, batch, block.repeats)
    finally:
        for handle in handles:
            handle.remove()


class _Hook:
    """Shows an observer what goes through a module, and the gradient there once it arrives: of each batch
    the calls that come first, since a module may be called for other than tokens then. One ``of_memory``
    reads the encoder's states.
    """

    def __init__(self, observer: Observer, *, of_memory: bool = False) -> None:
        self.observer, self.of_memory = observer, of_memory
        self.real = torch.empty(0)
        self.waits = 0

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if not self.waits:
            return
        self.waits -= 1
        result: Tensor = output[0] if isinstance(output, tuple) else output
        take = self.observer.observe(_rows(inputs[0].detach()), _rows(result.detach()), self.real)
        watched = inputs[0] if self.observer.at_input else result
        watched.register_hook(lambda gradient: take(_rows(gradient)))  # type: ignore[no-untyped-call]


def _tell(hooks: Iterable[_Hook], batch: Batch, calls: int) -> None:
    for hook in hooks:
        states = batch.arguments[MEMORY] if hook.of_memory else batch.hidden
        mask = batch.memory_mask if hook.of_memory else batch.mask
        real = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        hook.real = (real if mask is None else mask).flatten()
        hook.waits = calls


def _rows(values: Tensor) -> Tensor:
    return values.flatten(0, -2)
