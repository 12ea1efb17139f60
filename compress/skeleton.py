"""``Skeleton``: a transformers model without weights, whose blocks are filled and freed one at a time.

The modules are transformers' own, built on the meta device, so that any family runs as its authors wrote it.
Layers whose stored shapes differ from the config (pruned models) are resized first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .anatomy import Anatomy, BlockAnatomy
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
    # torch's fused attention has no soft-cap: a model that needs one runs the plain form.
    capped = any(block.attention.softcap is not None for block in anatomy.blocks)
    attention = "eager" if capped else "sdpa"
    with init_empty_weights(include_buffers=False):
        if anatomy.kind == "decoder":
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation=attention, dtype=torch.float32
            )
        else:
            pooler = {} if anatomy.model_type == "distilbert" else {"add_pooling_layer": False}
            model = AutoModel.from_config(
                config, attn_implementation=attention, dtype=torch.float32, **pooler
            )
    for block in anatomy.blocks:
        _resize(model, anatomy, block)
    return model.eval()  # type: ignore[no-any-return]


def module_name(anatomy: Anatomy, stored: str) -> str:
    """The module path in the built model of a stored name: encoders are built without the prefix of their
    base.
    """
    return stored.removeprefix(anatomy.base) if anatomy.kind == "encoder" else stored


def _resize(model: nn.Module, anatomy: Anatomy, block: BlockAnatomy) -> None:
    for linear in block.linears():
        module = model.get_submodule(module_name(anatomy, linear.name))
        if not isinstance(module, nn.Linear):
            raise CheckpointError(f"{linear.name} is a {type(module).__name__} in transformers, not a Linear")
        if (module.out_features, module.in_features) != (linear.out_features, linear.in_features):
            module.out_features, module.in_features = linear.out_features, linear.in_features
            empty = torch.empty(linear.out_features, linear.in_features, device="meta")
            module.weight = nn.Parameter(empty, requires_grad=False)
            if linear.bias:
                module.bias = nn.Parameter(empty[:, 0].clone(), requires_grad=False)
    owner = model.get_submodule(module_name(anatomy, block.attention.q.name).rpartition(".")[0])
    attention = block.attention
    sizes = {
        "num_key_value_groups": attention.heads // attention.kv_heads,
        "num_attention_heads": attention.heads,
        "n_heads": attention.heads,
        "all_head_size": attention.heads * attention.head_dim,
        "dim": attention.heads * attention.head_dim,
    }
    for name, value in sizes.items():
        if isinstance(getattr(owner, name, None), int):
            setattr(owner, name, value)


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
            return torch.cat(parts, -1) if bias is None else torch.cat(parts, -1) + bias.to(self.device)

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
    """Stands in for the first block: keeps what it was called with and ends the pass."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: Tensor | None = None
        self.arguments: dict[str, Any] = {}

    def forward(self, hidden_states: Tensor, *positional: Any, **named: Any) -> Tensor:
        self.hidden = hidden_states
        # Some encoders pass the mask by position; it is their first argument after the hidden states.
        self.arguments = {**({"attention_mask": positional[0]} if positional else {}), **named}
        raise _Caught


def first_block_inputs(
    skeleton: Skeleton, model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None
) -> tuple[Tensor, dict[str, Any]]:
    """Hidden states ``[batch, tokens, hidden]`` and keyword arguments that the first block is called with."""
    blocks = skeleton.block_modules()
    first, catcher = blocks[0], _Catcher()
    blocks[0] = catcher
    try:
        extra = {"use_cache": False} if skeleton.anatomy.kind == "decoder" else {}
        with torch.no_grad():
            model(input_ids=input_ids, attention_mask=attention_mask, **extra)
    except _Caught:
        pass
    finally:
        blocks[0] = first
    if catcher.hidden is None:
        raise CheckpointError(f"the first block of a {skeleton.anatomy.model_type} model was never called")
    return catcher.hidden, catcher.arguments
