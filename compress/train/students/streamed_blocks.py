"""``StreamedBlocks``: a model whose blocks keep only small tensors and what learns; their frozen matrices are
read when a block runs, and forgotten after it.

On the way forward the input of each block is kept and nothing inside it; on the way back the block is read
and computed again (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174), so that memory holds the
matrices of one block, whatever the model's size, beside a few that stay (:mod:`.streamed_blocks`). Values
and gradients are those of the whole model, to the bit. Quantized matrices come as codes, a byte each.
Embedding and head stay in the type that they are stored in.

Which blocks of a streamed student stay in memory: the first ones, for as long as their matrices and what
they keep for the way back fit into a small room.

A block that stays is read once, and is not computed again on the way back, which is a third of the products
of a step. Of a small model all blocks may stay; of one with billions of parameters one or none.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ....files.read_ahead import Ahead
from ...model.anatomy import Anatomy, module_name, stored_name
from ...model.block_anatomy import BlockAnatomy, Linear
from ...model.skeleton import Skeleton, TokenTable
from ...model.torch_model import round_inputs
from ...model.weights import WeightSource
from ...numbers.fake_quant import TokenQuantLinear
from ...pipeline.block_shards import Masks
from .quant_linear import StoredHead

# A quarter of what a process with torch and a small model takes in any case. Without it 8 steps of a model of
# 135 million weights take 1.4 times the processor time of blocks that all stay.
_MOST = 256 << 20
_FLOAT = 4


def streams(source: WeightSource, device: torch.device) -> bool:
    """Whether to read the blocks of ``source`` as they run. On a GPU, which computes a block faster than it
    is read, only where the model in float32 would take more than half of what is free.
    """
    if device.type != "cuda":
        return True
    weights = sum(linear.out_features * linear.in_features for linear in source.anatomy.linears())
    return 4 * weights > torch.cuda.mem_get_info(device)[0] // 2


@dataclass
class Frozen:
    """``attribute`` of ``module``, a parameter or buffer, which ``read`` reads."""

    module: nn.Module
    attribute: str
    read: Callable[[], Tensor | None]

    @property
    def size(self) -> int:
        """In bytes, with what a matrix in float becomes for its product, which the way back needs."""
        value: Tensor = getattr(self.module, self.attribute)
        return value.nbytes * (2 if value.is_floating_point() else 1)

    def value(self, device: torch.device) -> Tensor:
        """What is read, where it goes to ``device`` fastest."""
        value = self.read()
        assert value is not None
        return value.pin_memory() if device.type == "cuda" else value

    def fill(self, value: Tensor, device: torch.device) -> None:
        """Let the module have it."""
        self._set(value.to(device, non_blocking=value.is_pinned()))

    def clear(self) -> None:
        """Take it away; its shape stays."""
        self._set(torch.empty_like(getattr(self.module, self.attribute), device="meta"))

    def _set(self, value: Tensor) -> None:
        parameter = self.attribute in self.module._parameters
        setattr(self.module, self.attribute, nn.Parameter(value, requires_grad=False) if parameter else value)


class StreamedBlocks:
    """The model of ``source`` on ``device``; ``model`` is transformers' module. Blocks that learn stay in
    ``room``, a number of bytes; on a GPU, for which a thread reads one after another, none does.
    """

    def __init__(self, source: WeightSource, device: torch.device) -> None:
        self.source, self.device, anatomy = source, device, source.anatomy
        self.skeleton = Skeleton(source, device)
        self.model = self.skeleton.model
        self.frozen: list[list[Frozen]] = [[] for _ in anatomy.blocks]
        self._built: dict[str, nn.Module] = {}
        self._held: set[int] = set()
        self.room = room_of(anatomy) if device.type == "cpu" else 0
        self.take: Callable[[int], list[Tensor]] = self._read
        if device.type != "cpu":  # whose cores have nothing to wait for
            self.take = Ahead(self._read, len(anatomy.blocks)).take
        self._fill_outside()
        for index, block in enumerate(anatomy.blocks):
            self._open(index, block.prefix)
        round_inputs(self.model, source)

    def module(self, index: int) -> nn.Module:
        """transformers' block ``index``."""
        return self.skeleton.submodule(self.source.anatomy.blocks[index].prefix)

    def _fill_outside(self) -> None:
        anatomy, source = self.source.anatomy, self.source
        prefixes = tuple(f"{block.prefix}." for block in anatomy.blocks)
        if anatomy.patches is None:
            table = source.stored(f"{anatomy.embedding}.weight").to(self.device)
            looked_up = TokenTable(table, self.skeleton.table_scale, torch.float32)
            for name in (anatomy.embedding, *anatomy.embedding_copies):
                self._replace(name, looked_up)
        if anatomy.head is not None:
            table = table if anatomy.tied else source.stored(f"{anatomy.head}.weight").to(self.device)
            self._replace(anatomy.head, StoredHead(table, source.bias(anatomy.head)).to(self.device))
        for local, parameter in list(self.model.named_parameters()):
            stored = stored_name(anatomy, local)
            if parameter.is_meta and not stored.startswith(prefixes):
                self.skeleton.assign(self.model, local, source.tensor(stored))

    def _open(self, index: int, prefix: str) -> None:
        """Fill the vectors of a block; its matrices are read whenever it runs."""
        block, path = self.skeleton.submodule(prefix), module_name(self.source.anatomy, prefix)
        for local, parameter in list(block.named_parameters()):
            stored = stored_name(self.source.anatomy, f"{path}.{local}")
            if parameter.ndim < 2:
                self.skeleton.assign(block, local, self.source.tensor(stored))
            else:
                owner, _, leaf = local.rpartition(".")
                read = self._reader(stored)
                self.frozen[index].append(Frozen(block.get_submodule(owner), leaf, read))
        inner = block.forward

        @wraps(inner)
        def streamed(*states: Any, **arguments: Any) -> Any:
            with self.loaded(index):
                return inner(*states, **arguments)

        @wraps(inner)
        def forward(*states: Any, **arguments: Any) -> Any:
            if not torch.is_grad_enabled():
                return streamed(*states, **arguments)
            if self._stays(
                index, next(value for value in (*states, *arguments.values()) if value is not None)
            ):
                self._hold(index)
                return inner(*states, **arguments)
            options: Any = {"use_reentrant": False, "preserve_rng_state": False}
            return checkpoint(streamed, *states, **options, **arguments)

        block.forward = forward

    def _stays(self, index: int, states: Tensor) -> bool:
        """Whether the block ``index`` does, into which ``states [..., hidden]`` come."""
        hidden, tokens = self.source.anatomy.hidden_size, states.numel() // states.shape[-1]
        blocks = zip(self.source.anatomy.blocks[: index + 1], self.frozen, strict=False)
        costs = (block_cost(one, hidden, tokens, sum(part.size for part in parts)) for one, parts in blocks)
        return sum(costs) <= self.room

    def _hold(self, index: int) -> None:
        """Read the matrices of the block ``index``, which does not forget them."""
        if index not in self._held:
            for one, value in zip(self.frozen[index], self.take(index), strict=True):
                one.fill(value, self.device)
            self._held.add(index)

    def _reader(self, stored: str) -> Callable[[], Tensor]:
        return lambda: self.source.tensor(stored)

    def _replace(self, stored: str, module: nn.Module) -> None:
        self._built[stored] = self.skeleton.submodule(stored)
        self.model.set_submodule(module_name(self.source.anatomy, stored), module)

    def hold_tables(self) -> None:
        """Have the embedding, and a head of its own, in float32 as transformers' own modules."""
        tied = self.source.anatomy.copies()
        for stored, module in self._built.items():
            if f"{stored}.weight" in tied:
                continue
            self.model.set_submodule(module_name(self.source.anatomy, stored), module)
            self.skeleton.fill(stored)

    def freeze(self, name: str, module: nn.Module, attribute: str, read: Callable[[], Tensor | None]) -> None:
        """Have ``attribute`` of ``module``, which is in the linear ``name``, read whenever its block runs."""
        blocks = enumerate(self.source.anatomy.blocks)
        index = next(index for index, block in blocks if name.startswith(f"{block.prefix}."))
        self.frozen[index].append(Frozen(module, attribute, read))
        if index not in self._held:
            self.frozen[index][-1].clear()

    def quantized(self, name: str, module: nn.Module, read: Callable[[], Tensor]) -> None:
        """``module``, whose ``codes`` are read, takes the place of the linear ``name``."""
        replaced = self.skeleton.submodule(name)
        replaced = replaced.linear if isinstance(replaced, TokenQuantLinear) else replaced
        for entries in self.frozen:
            entries[:] = [one for one in entries if one.module is not replaced]
        self.freeze(name, module, "codes", read)

    def factored(self, linear: Linear, module: nn.Module, masks: Masks) -> None:
        """The weight of ``linear``, which is ``module``, is now what a change of low rank is added to."""
        place: Any = module.parametrizations["weight"]  # type: ignore[index]
        one = next(one for entries in self.frozen for one in entries if one.module is module)
        one.module, one.attribute = place, "original"
        if linear.name in masks.names:
            self.freeze(linear.name, place[0], "mask", partial(masks.one, linear))

    def _read(self, index: int) -> list[Tensor]:
        return [one.value(self.device) for one in self.frozen[index]]

    @contextmanager
    def loaded(self, index: int) -> Iterator[None]:
        """The block ``index`` has its matrices, for as long as the context lasts."""
        if index in self._held:
            yield
            return
        self._hold(index)
        try:
            yield
        finally:
            self._held.remove(index)
            for one in self.frozen[index]:
                one.clear()


def room_of(anatomy: Anatomy) -> int:
    """Bytes in which blocks may stay: less than a model that is held whole has in float, so that one which
    streams takes less.
    """
    weights = sum(linear.out_features * linear.in_features for linear in anatomy.linears())
    return min(_MOST, _FLOAT * weights)


def passing(block: BlockAnatomy, hidden: int) -> int:
    """How many numbers a token of ``hidden`` channels leaves in a block for the way back."""
    mlp = block.feed_forward
    # Behind each norm, what is added to the residual, and the mixer's; of the MLP up, gate and their product.
    return 6 * hidden + block.mixer.live + (0 if mlp is None else 4 * mlp.up.out_features)


def block_cost(block: BlockAnatomy, hidden: int, tokens: int, matrices: int) -> int:
    """Bytes of a block that stays while ``tokens`` pass, with its ``matrices`` of so many bytes."""
    return matrices + _FLOAT * tokens * passing(block, hidden)


def staying(costs: Sequence[int], room: int) -> int:
    """How many of the first blocks, with such ``costs`` in bytes, stay in ``room``."""
    return sum(total <= room for total in accumulate(costs))
