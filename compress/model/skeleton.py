"""``Skeleton``: a transformers model without weights, whose blocks are filled and freed one at a time.

How the modules are built: :mod:`.meta_model`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ...files.read_ahead import Ahead, following
from ..numbers.qtensor import QTensor
from ..numbers.scheme import Scheme
from ..numbers.table_rounding import quantize_table
from .anatomy import LogitForm, module_name, stored_name
from .meta_model import build
from .weights import WeightSource

# Rows of the head that are held in float32 at once, when it is stored in less.
_HEAD_ROWS = 8192


class Skeleton:
    """The model of a checkpoint, whose weights are loaded onto ``device`` in ``dtype`` on demand.

    ``table_scale`` is what the embedding module multiplies its rows by.
    """

    def __init__(
        self, source: WeightSource, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.source, self.anatomy, self.device, self.dtype = source, source.anatomy, device, dtype
        self.model = build(source.reader.path, source.anatomy)
        # Granite's embeddings are scaled by the model, and not by the embedding module.
        scales = hasattr(self.submodule(self.anatomy.embedding), "embed_scale")
        self.table_scale = self.anatomy.embedding_scale if scales else 1.0
        for name in self.anatomy.computed:
            table: Any = self.submodule(name)
            table.weight = nn.Parameter(table.create_weight().to(device, dtype), requires_grad=False)
        for buffer_name, buffer in list(self.model.named_buffers()):
            owner = self.model.get_submodule(buffer_name.rpartition(".")[0])
            stored = stored_name(self.anatomy, buffer_name)
            value = source.tensor(stored) if stored in self.anatomy.buffers() else buffer
            setattr(owner, buffer_name.rpartition(".")[2], value.to(device))
        self._filled_last = -1
        self._ahead = None if device.type == "cpu" else Ahead(self._read_block, len(self.anatomy.blocks))

    def submodule(self, stored: str) -> nn.Module:
        """The module with the stored name ``stored``."""
        return self.model.get_submodule(module_name(self.anatomy, stored))

    def fill(self, stored: str) -> nn.Module:
        """Load the weights of every parameter below the module ``stored``."""
        module = self.submodule(stored)
        for local, name in self._parameters(stored):
            self.assign(module, local, self.source.tensor(name))
        return module

    def fill_block(self, index: int) -> nn.Module:
        """:meth:`fill` of the block ``index``. While it is used, the one that follows is read: by a thread
        where a GPU computes, else by the system.
        """
        blocks, last, self._filled_last = self.anatomy.blocks, self._filled_last, index
        prefix, next_one = blocks[index].prefix, following(index, last, len(blocks))
        if self._ahead is None:
            module = self.fill(prefix)
            if next_one is not None:
                self.source.reader.expect(f"{blocks[next_one].prefix}.")
            return module
        module, values = self.submodule(prefix), self._ahead.take(index)
        for (local, _), value in zip(self._parameters(prefix), values, strict=True):
            self.assign(module, local, value)
        return module

    def _parameters(self, stored: str) -> list[tuple[str, str]]:
        """Each parameter below the module ``stored``: its name there, and the stored one."""
        path = module_name(self.anatomy, stored)
        names = [local for local, _ in self.submodule(stored).named_parameters()]
        return [(local, stored_name(self.anatomy, f"{path}.{local}")) for local in names]

    def _read_block(self, index: int) -> list[Tensor]:
        """The parameters of a block, in memory from which they go to the device fastest."""
        names = self._parameters(self.anatomy.blocks[index].prefix)
        values = [self.source.tensor(name) for _, name in names]
        return [value.pin_memory() for value in values] if self.device.type == "cuda" else values

    def assign(self, module: nn.Module, local: str, value: Tensor) -> None:
        """Set the parameter ``local`` below ``module``."""
        owner_name, _, leaf = local.rpartition(".")
        owner = module.get_submodule(owner_name)
        value = value.to(self.device, self.dtype, non_blocking=value.is_pinned())
        setattr(owner, leaf, nn.Parameter(value, requires_grad=False))

    def free(self, stored: str) -> None:
        """Drop the weights below the module ``stored``."""
        module = self.submodule(stored)
        for local, parameter in list(module.named_parameters()):
            self._assign_meta(module, local, parameter)

    @staticmethod
    def _assign_meta(module: nn.Module, local: str, parameter: Tensor) -> None:
        owner_name, _, leaf = local.rpartition(".")
        empty = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        setattr(module.get_submodule(owner_name), leaf, empty)

    def outer_modules(self) -> list[str]:
        """Stored names of the modules outside the blocks that the input of the first block needs."""
        anatomy = self.anatomy
        first = anatomy.embedding if anatomy.patches is None else anatomy.patches.embedder
        names = [first, anatomy.position_embedding, anatomy.token_type_embedding]
        names += [anatomy.embedding_projection, *anatomy.position_biases]
        norms = [anatomy.embedding_norm, anatomy.encoder_norm]
        if anatomy.decoder_entry is not None:
            names.append(anatomy.decoder_entry.position_embedding)
            norms.append(anatomy.decoder_entry.embedding_norm)
        names += [] if anatomy.hearing is None else anatomy.hearing.convolutions
        if anatomy.relative is not None:
            names.append(anatomy.relative.table)
            norms.append(anatomy.relative.norm)
        names += [norm.name for norm in norms if norm is not None]
        return [name for name in names if name is not None and name not in anatomy.computed]

    def stacks(self) -> list[nn.ModuleList]:
        """The lists that hold the blocks: one, or that of the encoder and that of the decoder."""
        found = []
        for stack in dict.fromkeys(block.stack for block in self.anatomy.blocks):
            blocks = self.submodule(stack)
            if not isinstance(blocks, nn.ModuleList):
                raise CheckpointError(f"{stack} is not a list of blocks")
            found.append(blocks)
        return found

    @contextmanager
    def embeddings(self, *, rounded: bool = False) -> Iterator[nn.Module]:
        """The model with all that precedes the first block loaded, for as long as the context lasts; the
        rows of the embedding are ``rounded`` as exports store them.
        """
        tables = (self.anatomy.embedding, *self.anatomy.embedding_copies)
        names = [name for name in self.outer_modules() if name != self.anatomy.embedding]
        if self.anatomy.patches is not None:
            with self._filled(names):
                yield self.model
            return
        table = self.source.stored(f"{self.anatomy.embedding}.weight").to(self.device)
        scheme = self.source.embedding_scheme if rounded else None
        looked_up = TokenTable(table, self.table_scale, self.dtype, scheme)
        empty = {name: self._replace(name, looked_up) for name in tables}
        try:
            with self._filled(names):
                yield self.model
        finally:
            for name, module in empty.items():
                self._replace(name, module)

    @contextmanager
    def _filled(self, names: Sequence[str]) -> Iterator[None]:
        try:
            for name in names:
                self.fill(name)
            yield
        finally:
            for name in names:
                self.free(name)

    @contextmanager
    def last_norm(self) -> Iterator[nn.Module]:
        """The final norm, for as long as the context lasts; the identity where there is none."""
        norm = self.anatomy.final_norm
        if norm is None:
            yield nn.Identity()
            return
        try:
            yield self.fill(norm.name)
        finally:
            self.free(norm.name)

    @contextmanager
    def head(self, *, rounded: bool = False) -> Iterator[Head]:
        """The final norm, if there is one, and the head, for as long as the context lasts; the head
        ``rounded`` as exports store it.
        """
        anatomy = self.anatomy
        if anatomy.head is None:
            raise CheckpointError(f"a {anatomy.model_type} model has no head")
        module = anatomy.embedding if anatomy.tied else anatomy.head
        rounded = rounded and self.source.table_scheme(str(module)) is not None
        read = self.source.table(str(module)) if rounded else self.source.stored(f"{module}.weight")
        table, bias = read.to(self.device), self.source.bias(anatomy.head)
        if anatomy.head_bias is not None:
            bias = self.source.tensor(anatomy.head_bias)[0]
        bias = None if bias is None else bias.to(self.device)
        with self.last_norm() as norm:
            yield Head(norm, table, bias, anatomy.logit_form)

    def _replace(self, stored: str, module: nn.Module) -> nn.Module:
        """Put ``module`` in the place of the module ``stored``, which is returned."""
        owner_name, _, leaf = module_name(self.anatomy, stored).rpartition(".")
        owner = self.model.get_submodule(owner_name)
        replaced: nn.Module = getattr(owner, leaf)
        setattr(owner, leaf, module)
        return replaced


class TokenTable(nn.Module):
    """The token embedding in its stored type: the rows that are looked up become ``dtype``, not the table;
    with a ``scheme`` they are rounded, too.
    """

    def __init__(self, table: Tensor, scale: float, dtype: torch.dtype, scheme: Scheme | None = None) -> None:
        super().__init__()
        self.table, self.scale, self.dtype, self.scheme = table, scale, dtype, scheme

    def forward(self, input_ids: Tensor) -> Tensor:
        rows = nn.functional.embedding(input_ids, self.table).to(self.dtype)
        if self.scheme is not None:
            rows = quantize_table(rows.flatten(0, -2), self.scheme).dequantize(self.dtype).view(rows.shape)
        return rows * self.scale


class Head:
    """What makes logits of a decoder's last states: a ``norm``, and a ``table [vocab, hidden]`` that stays in
    its stored type or codes.
    """

    def __init__(
        self, norm: nn.Module, table: Tensor | QTensor, bias: Tensor | None, form: LogitForm | None
    ) -> None:
        self.norm, self.table, self.bias, self.form = norm, table, bias, form

    def __call__(self, rows: Tensor) -> Tensor:
        """From rows ``[tokens, hidden]`` that leave the last block to logits ``[tokens, vocab]``."""
        with torch.no_grad():
            return self.logits(self.norm(rows))

    def logits(self, states: Tensor) -> Tensor:
        """Those of ``states [tokens, hidden]`` behind the norm, without gradients."""
        with torch.no_grad():
            found = torch.cat([states @ part.to(states.dtype).T for part in self._parts()], -1)
            found = found if self.bias is None else found + self.bias.to(found.dtype)
            return found if self.form is None else self.form.of(found)

    def backward(self, logits: Tensor, gradient: Tensor) -> Tensor:
        """The gradient at the states ``[tokens, hidden]``, of that at the ``logits`` they gave."""
        if self.form is not None:
            gradient = self.form.gradient(logits, gradient)
        pieces = torch.split(gradient, _HEAD_ROWS, -1)
        parts = zip(pieces, self._parts(), strict=True)
        first, *others = (piece @ part.to(piece.dtype) for piece, part in parts)
        return sum(others, start=first)

    def part(self, rows: slice) -> Head:
        """The head of some ``rows`` of a table that is not in codes."""
        assert isinstance(self.table, Tensor)
        bias = None if self.bias is None else self.bias[rows]
        return Head(self.norm, self.table[rows], bias, self.form)

    def _parts(self) -> Iterator[Tensor]:
        if isinstance(self.table, Tensor):
            yield from torch.split(self.table, _HEAD_ROWS)
            return
        for rows in torch.split(
            torch.arange(self.table.shape[0], device=self.table.codes.device), _HEAD_ROWS
        ):
            yield self.table.rows(rows).dequantize()
