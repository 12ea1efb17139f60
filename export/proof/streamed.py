"""The torch side of a proof: the decoder as transformers runs it, one block in memory at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...compress.model.anatomy import module_name
from ...compress.model.block_anatomy import Norm
from ...compress.model.kv_scheme import tap
from ...compress.model.skeleton import Head, Skeleton
from ...compress.model.torch_model import round_inputs
from ...compress.model.weights import WeightSource
from ...compress.numbers.fake_quant import unwrap, wrap
from ...compress.pipeline.capture import block_inputs
from ...compress.pipeline.forward import Batch, run_block
from ..graph.attention.cache_io import CODES

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
# Passes with a shaken last digit, and what that is of a float32 just above a power of two.
SHAKES = 8
_LAST_PLACE = 2.0**-23

# What changes the block that is loaded, by its index, for as long as a context lasts.
Change = Callable[[nn.Module, int], AbstractContextManager[object]]


@dataclass(frozen=True)
class States:
    """Hidden states ``[rows, tokens, hidden]`` at one block, and the keyword arguments of every block."""

    hidden: Tensor
    arguments: Sequence[Mapping[str, Any]]


class StreamedModel:
    """The decoder ``source``, whose cache holds ``kv_dtype``, dequantized where it is quantized."""

    def __init__(self, source: WeightSource, kv_dtype: str) -> None:
        self.source, self.kv_dtype = source, kv_dtype
        self.skeleton = Skeleton(source, torch.device("cpu"))
        self.blocks = source.anatomy.blocks

    def embedded(self, ids: Ids, *, rounded: bool = False) -> States:
        """What the first block reads of ``ids [rows, tokens]``, the embedding ``rounded`` as it is stored."""
        with self.skeleton.embeddings(rounded=rounded) as model:
            return States(*block_inputs(self.skeleton, model, torch.from_numpy(ids), None))

    def looked_up(self, ids: Ids) -> tuple[Ids, dict[str, Floats]]:
        """The places of ``ids [rows, tokens]`` among the rows of the table that they ask for, and these rows
        ``[known, hidden]`` float32 by the table's name: they stand for it, which is the largest tensor.
        """
        known, ranks = np.unique(ids, return_inverse=True)
        name = f"{self.source.anatomy.embedding}.weight"
        rows = self.source.stored(name)[torch.from_numpy(known)].to(torch.float32).numpy()
        return ranks.reshape(ids.shape), {name: rows}

    @contextmanager
    def block(self, index: int) -> Iterator[nn.Module]:
        """The block ``index`` in float32, for as long as the context lasts."""
        prefix = self.blocks[index].prefix
        try:
            yield self.skeleton.fill_block(index)
        finally:
            self.skeleton.free(prefix)

    def run(self, module: nn.Module, index: int, states: States, change: Change | None = None) -> States:
        """``states`` after the block ``index``, which is ``module``, with a ``change`` of it."""
        with nullcontext() if change is None else change(module, index):
            output = run_block(module, Batch(states.hidden, states.arguments[index], None))
        return States(output, states.arguments)

    def sweep(self, states: States, changes: Sequence[Change]) -> Iterator[Tensor]:
        """What ``states`` at the first block become behind the last one, with each of ``changes``."""
        several = [states for _ in changes]
        for index in range(len(self.blocks)):
            with self.block(index) as module:
                pairs = zip(several, changes, strict=True)
                several = [self.run(module, index, one, change) for one, change in pairs]
        return (one.hidden for one in several)

    @torch.no_grad()
    def normed(self, norm: Norm | None, hidden: Tensor) -> Tensor:
        """``norm(hidden)``, if there is a norm; not within :meth:`block` of the block that it belongs to."""
        if norm is None:
            return hidden
        try:
            return self.skeleton.fill(norm.name)(hidden)  # type: ignore[no-any-return]
        finally:
            self.skeleton.free(norm.name)

    def head(self, *, rounded: bool = False) -> AbstractContextManager[Head]:
        """Final norm and head, the head ``rounded`` as it is stored."""
        return self.skeleton.head(rounded=rounded)

    @contextmanager
    def as_stored(self, module: nn.Module, index: int) -> Iterator[None]:
        """A :data:`Change`: inputs rounded where the scheme says so, keys and values as a cache of codes
        gives them back.
        """
        model = self.skeleton.model
        rounded = round_inputs(model, self.source, f"{self.blocks[index].prefix}.")
        try:
            with self.with_codes(module, index):
                yield
        finally:
            for name in rounded:
                unwrap(model, name)

    @contextmanager
    def with_codes(self, _module: nn.Module, index: int) -> Iterator[None]:
        """A :data:`Change`: keys and values as a cache of codes gives them back."""
        found = self.source.block_scales(self.blocks[index]) if self.kv_dtype in CODES else {}
        taps = [tap(self.skeleton.submodule(one), scales.round) for one, scales in found.items()]
        with _removed(taps):
            yield

    @contextmanager
    def with_rounded_inputs(self, module: nn.Module, index: int) -> Iterator[None]:
        """A :data:`Change`: :meth:`as_stored`, and the inputs of all quantized linears in 8 bits per token,
        as the kernels have them.
        """
        model, prefix = self.skeleton.model, f"{self.blocks[index].prefix}."
        names = [
            module_name(self.source.anatomy, name) for name in self.source.schemes if name.startswith(prefix)
        ]
        with self.as_stored(module, index):
            for name in names:
                wrap(model, name)
            try:
                yield
            finally:
                for name in names:
                    unwrap(model, name)


@contextmanager
def in_float64(module: nn.Module, _index: int) -> Iterator[None]:
    """A :data:`Change`: modules compute in float64, each of which is widened only while it does; all at once
    of a block that has parameters beside its modules, and may read theirs uncalled, as Mamba's does.
    """
    apart = _has_parameters_apart(module)

    def enter(part: nn.Module, inputs: tuple[Any, ...]) -> Any:
        part.double()
        return _double(inputs)

    def leave(part: nn.Module, _inputs: Any, _output: Any) -> None:
        part.float()

    def widen(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return _double(inputs), {name: _double(value) for name, value in named.items()}

    hooks = [module.register_forward_pre_hook(widen, with_kwargs=True)]
    for part in [] if apart else _leaves(module):
        hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    if apart:
        module.double()
    with _removed(hooks):
        yield
    if apart:
        module.float()


def _double(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_double(one) for one in value)
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def shaken(seed: int) -> Change:
    """A :data:`Change`: every module's output is off by up to one unit in its last place, at random."""

    @contextmanager
    def change(module: nn.Module, index: int) -> Iterator[None]:
        generator = torch.Generator().manual_seed(seed << 16 | index)

        def shake(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                return None
            return output * (1 + _LAST_PLACE * (2 * torch.rand(output.shape, generator=generator) - 1))

        with _removed([part.register_forward_hook(shake) for part in _leaves(module)]):
            yield

    return change


# How far another program that is right may be, at most: the error of one is one sample, and where a model
# amplifies it samples differ ten times, so that the largest counts.
ROUNDINGS: tuple[Change, ...] = (in_float64, *(shaken(seed) for seed in range(SHAKES)))


def _leaves(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if next(part.children(), None) is None]


def _has_parameters_apart(module: nn.Module) -> bool:
    branches = [part for part in module.modules() if next(part.children(), None) is not None]
    return any(next(part.parameters(recurse=False), None) is not None for part in branches)


@contextmanager
def _removed(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
