"""``Skeleton``: a transformers model without weights, whose blocks are filled and freed one at a time.

The modules are transformers' own, built on the meta device, so that any family runs as its authors wrote it.
Layers whose stored shapes differ from the config (pruned models) are resized first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .anatomy import Anatomy, Attention, BlockAnatomy
from .weights import WeightSource

# Rows of the head that are held in float32 at once, when it is stored in less.
_HEAD_ROWS = 8192


def build(path: Path, anatomy: Anatomy) -> nn.Module:
    """The transformers module for the checkpoint at ``path``: parameters on the meta device, buffers real,
    eval mode.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # The form of attention is transformers' choice: torch's fused one, save for models that it does not fit.
    with init_empty_weights(include_buffers=False):
        if anatomy.kind == "decoder":
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        else:
            pooler = {} if anatomy.model_type == "distilbert" else {"add_pooling_layer": False}
            model = AutoModel.from_config(config, dtype=torch.float32, **pooler)
    for block in anatomy.blocks:
        _resize(model, anatomy, block)
    return model.eval()  # type: ignore[no-any-return]


def module_name(anatomy: Anatomy, stored: str) -> str:
    """The path in the built model of a module by its stored name."""
    return _replaced(stored, anatomy.renamed)


def stored_name(anatomy: Anatomy, module: str) -> str:
    """The inverse of :func:`module_name`."""
    return _replaced(module, tuple((theirs, ours) for ours, theirs in anatomy.renamed))


def _replaced(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _linear(model: nn.Module, name: str) -> nn.Module:
    """The module ``name``; a linear that keeps its weight transposed (GPT-2) becomes a plain one first."""
    from transformers.pytorch_utils import Conv1D

    module = model.get_submodule(name)
    if not isinstance(module, Conv1D):
        return module
    inputs, outputs = module.weight.shape
    plain = nn.Linear(inputs, outputs, device="meta")
    model.set_submodule(name, plain.requires_grad_(False))
    return plain


def _resize(model: nn.Module, anatomy: Anatomy, block: BlockAnatomy) -> None:
    for linear in block.linears():
        module = _linear(model, module_name(anatomy, linear.name))
        if not isinstance(module, nn.Linear):
            raise CheckpointError(f"{linear.name} is a {type(module).__name__} in transformers, not a Linear")
        if (module.out_features, module.in_features) != (linear.out_features, linear.in_features):
            module.out_features, module.in_features = linear.out_features, linear.in_features
            empty = torch.empty(linear.out_features, linear.in_features, device="meta")
            module.weight = nn.Parameter(empty, requires_grad=False)
            if linear.bias:
                module.bias = nn.Parameter(empty[:, 0].clone(), requires_grad=False)
    set_heads(model.get_submodule(module_name(anatomy, block.attention.module)), block.attention)


def set_heads(module: nn.Module, attention: Attention) -> None:
    """Tell transformers' attention ``module`` how many heads it has now: families call it differently."""
    sizes = {
        "num_key_value_groups": attention.heads // attention.kv_heads,
        "num_attention_heads": attention.heads,
        "num_heads": attention.heads,
        "n_heads": attention.heads,
        "split_size": attention.heads * attention.head_dim,
        "all_head_size": attention.heads * attention.head_dim,
        "dim": attention.heads * attention.head_dim,
    }
    for name, value in sizes.items():
        if isinstance(getattr(module, name, None), int):
            setattr(module, name, value)


class Skeleton:
    """The model of a checkpoint with its weights loaded on demand onto ``device`` in float32."""

    def __init__(self, source: WeightSource, device: torch.device) -> None:
        self.source, self.anatomy, self.device = source, source.anatomy, device
        self.model = build(source.reader.path, source.anatomy)
        for buffer_name, buffer in list(self.model.named_buffers()):
            owner = self.model.get_submodule(buffer_name.rpartition(".")[0])
            setattr(owner, buffer_name.rpartition(".")[2], buffer.to(device))

    def submodule(self, stored: str) -> nn.Module:
        """The module with the stored name ``stored``."""
        return self.model.get_submodule(module_name(self.anatomy, stored))

    def fill(self, stored: str) -> nn.Module:
        """Load the weights of every parameter below the module ``stored``."""
        module = self.submodule(stored)
        for local, _ in list(module.named_parameters()):
            self.assign(module, local, self.source.tensor(f"{stored}.{local}"))
        return module

    def assign(self, module: nn.Module, local: str, value: Tensor) -> None:
        """Set the parameter ``local`` below ``module``."""
        owner_name, _, leaf = local.rpartition(".")
        owner = module.get_submodule(owner_name)
        setattr(owner, leaf, nn.Parameter(value.to(self.device), requires_grad=False))

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
        names = [anatomy.embedding, anatomy.position_embedding, anatomy.token_type_embedding]
        if anatomy.embedding_norm is not None:
            names.append(anatomy.embedding_norm.name)
        return [name for name in names if name is not None]

    def block_modules(self) -> nn.ModuleList:
        """The list that holds the blocks."""
        blocks = self.submodule(self.anatomy.blocks_name)
        if not isinstance(blocks, nn.ModuleList):
            raise CheckpointError(f"{self.anatomy.blocks_name} is not a list of blocks")
        return blocks

    @contextmanager
    def embeddings(self) -> Iterator[nn.Module]:
        """The model with all that precedes the first block loaded, for as long as the context lasts."""
        names = [name for name in self.outer_modules() if name != self.anatomy.embedding]
        table = self.source.stored(f"{self.anatomy.embedding}.weight").to(self.device)
        empty = self._replace(self.anatomy.embedding, _TokenTable(table, self.anatomy.embedding_scale))
        try:
            for name in names:
                self.fill(name)
            yield self.model
        finally:
            for name in names:
                self.free(name)
            self._replace(self.anatomy.embedding, empty)

    @contextmanager
    def head(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """From rows ``[tokens, hidden]`` that leave the last block to logits ``[tokens, vocab]``, float32.

        Raises:
            CheckpointError: the model has no final norm or head.
        """
        anatomy = self.anatomy
        if anatomy.final_norm is None or anatomy.head is None:
            raise CheckpointError(f"a {anatomy.model_type} model has no head")
        table = self.source.stored(f"{anatomy.embedding if anatomy.tied else anatomy.head}.weight")
        table, bias = table.to(self.device), self.source.bias(anatomy.head)
        norm = self.fill(anatomy.final_norm.name)

        def logits(rows: Tensor) -> Tensor:
            with torch.no_grad():
                parts = [norm(rows) @ part.to(torch.float32).T for part in torch.split(table, _HEAD_ROWS)]
            found = torch.cat(parts, -1) if bias is None else torch.cat(parts, -1) + bias.to(self.device)
            cap = anatomy.logit_softcap
            return found if cap is None else cap * torch.tanh(found / cap)

        try:
            yield logits
        finally:
            self.free(anatomy.final_norm.name)

    def _replace(self, stored: str, module: nn.Module) -> nn.Module:
        """Put ``module`` in the place of the module ``stored``, which is returned."""
        owner_name, _, leaf = module_name(self.anatomy, stored).rpartition(".")
        owner = self.model.get_submodule(owner_name)
        replaced: nn.Module = getattr(owner, leaf)
        setattr(owner, leaf, module)
        return replaced


class _TokenTable(nn.Module):
    """The token embedding in its stored type: the rows that are looked up become float32, not the table."""

    def __init__(self, table: Tensor, scale: float) -> None:
        super().__init__()
        self.table, self.scale = table, scale

    def forward(self, input_ids: Tensor) -> Tensor:
        return nn.functional.embedding(input_ids, self.table).to(torch.float32) * self.scale


class _Caught(Exception):
    pass


class _Catcher(nn.Module):
    """Stands in for a block: keeps what it was called with and hands the hidden states on."""

    def __init__(self, block: nn.Module, *, last: bool) -> None:
        super().__init__()
        self.names = list(signature(block.forward).parameters)[1:]
        self.last = last
        self.hidden: Tensor | None = None
        self.arguments: dict[str, Any] = {}

    def forward(self, hidden_states: Tensor, *positional: Any, **named: Any) -> Tensor:
        self.hidden = hidden_states
        self.arguments = {**dict(zip(self.names, positional, strict=False)), **named}
        if self.last:
            raise _Caught
        return hidden_states


def block_inputs(
    skeleton: Skeleton, model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Hidden states ``[batch, tokens, hidden]`` at the entrance of the first block, and the keyword arguments
    that each block is called with: masks may differ from block to block.
    """
    blocks = skeleton.block_modules()
    kept = list(blocks)
    catchers = [_Catcher(block, last=block is kept[-1]) for block in kept]
    try:
        for index, catcher in enumerate(catchers):
            blocks[index] = catcher
        extra = {"use_cache": False} if skeleton.anatomy.kind == "decoder" else {}
        with torch.no_grad():
            model(input_ids=input_ids, attention_mask=attention_mask, **extra)
    except _Caught:
        pass
    finally:
        for index, block in enumerate(kept):
            blocks[index] = block
    hidden = catchers[0].hidden
    if hidden is None or catchers[-1].hidden is None:
        raise CheckpointError(f"the blocks of a {skeleton.anatomy.model_type} model were never called")
    return hidden, [catcher.arguments for catcher in catchers]
