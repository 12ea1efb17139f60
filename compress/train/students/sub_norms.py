"""Sub-norms: from a Llama the same model with norms before o and down, which is BitNet's form.

BitNet b1.58 2B4T (Ma et al. 2025, arXiv 2504.12285) normalizes what these two matrices read, so that ternary
weights and int8 activations see one range. The scale of such a norm begins, for all its channels alike, at
the root mean square of what it normalizes over calibration text. What changes about the function is then a
size alone: what attention or MLP adds for a token keeps its direction and has the mean size of all tokens.
The rest is to be learned.
"""

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ....errors import RecipeError
from ....files.storage import write_json
from ...measure.reading import read
from ...model.anatomy import Anatomy, module_name
from ...model.block_anatomy import BlockAnatomy, Linear, Norm
from ...model.checkpoint.shard_writer import copy_companions
from ...model.torch_model import load_model
from ...model.weights import WeightSource
from ...text.micro_batches import MicroBatch, first_tokens

_TOKENS = 4096  # that sizes are measured on
# Token ids that BitNet's config takes for granted where none are written, and Llama's otherwise.
_ASSUMED_IDS = {"bos_token_id": 1, "eos_token_id": 2}


def with_sub_norms(anatomy: Anatomy) -> Anatomy:
    """``anatomy`` with a norm before o and down of every block."""
    reason = _why_not(anatomy)
    if reason is not None:
        raise RecipeError(
            f"a {anatomy.model_type} model cannot get sub-norms",
            why=f"{reason}; what transformers calls bitnet is a Llama with two more norms",
            fix="leave sub_norms out, or begin with a plain Llama",
        )
    return replace(anatomy, model_type="bitnet", blocks=tuple(map(_normed, anatomy.blocks)))


def _why_not(anatomy: Anatomy) -> str | None:
    first = anatomy.blocks[0]
    if any(block.normed_inside for block in anatomy.blocks):
        return "it has them already"
    if anatomy.model_type != "llama":
        return "it is no Llama"
    if first.attention.heads * first.attention.head_dim != anatomy.hidden_size:
        return "its heads together are not as wide as its hidden states"
    sizes = {
        (block.attention.heads, block.attention.kv_heads, block.mlp.down.in_features)
        for block in anatomy.blocks
    }
    if len(sizes) > 1:
        return "its blocks are of several sizes"
    return "its MLPs have biases" if first.mlp.down.bias else None


def _normed(block: BlockAnatomy) -> BlockAnatomy:
    attention, mlp, eps = block.attention, block.mlp, block.norm1.eps
    inner = Norm(f"{attention.module}.attn_sub_norm", "rms", eps)
    within = Norm(f"{mlp.down.name.rpartition('.')[0]}.ffn_sub_norm", "rms", eps)
    attention = replace(attention, inner_norm=inner)
    return replace(block, mixer=attention, feed_forward=replace(mlp, inner_norm=within))


def _readers(anatomy: Anatomy) -> Iterator[tuple[Norm, Linear]]:
    """Each sub-norm and the linear behind it."""
    for block in anatomy.blocks:
        attention, mlp = block.attention, block.mlp
        for norm, linear in ((attention.inner_norm, attention.o), (mlp.inner_norm, mlp.down)):
            assert norm is not None
            yield norm, linear


def source_with_sub_norms(
    source: WeightSource, micro_batches: Sequence[MicroBatch], directory: Path, device: torch.device
) -> WeightSource:
    """The model of ``source`` with sub-norms, as a checkpoint in ``directory``, whole or not at all."""
    made, partial = directory / "with_sub_norms", directory / "with_sub_norms.partial"
    if made.exists():
        return WeightSource.open(made)
    anatomy = with_sub_norms(source.anatomy)
    if source.schemes:
        raise RecipeError("a quantized model cannot get sub-norms", fix="put ternary first")
    model = load_model(source, device=device)
    sizes = sizes_read(model, anatomy, first_tokens(micro_batches, _TOKENS), device)
    tensors = source.reader.read(source.reader.shapes)
    for norm, linear in _readers(anatomy):
        stored = source.stored_type(f"{anatomy.blocks[0].norm1.name}.weight")
        tensors[f"{norm.name}.weight"] = torch.full((linear.in_features,), sizes[linear.name], dtype=stored)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(tensors, partial / "model.safetensors", {"format": "pt"})
    write_json(partial / "config.json", _config(source))
    copy_companions(source.reader, partial)
    partial.rename(made)
    return WeightSource.open(made)


def _config(source: WeightSource) -> dict[str, Any]:
    anatomy = source.anatomy
    block = anatomy.blocks[0]
    config = {key: value for key, value in source.reader.config.items() if value is not None}
    if anatomy.rope is not None and not config.keys() & {"rope_parameters", "rope_theta"}:
        config["rope_theta"] = anatomy.rope.theta
    return {
        **_ASSUMED_IDS,
        **config,
        "model_type": "bitnet",
        "architectures": ["BitNetForCausalLM"],
        "hidden_act": block.mlp.activation,
        "rms_norm_eps": block.norm1.eps,
        "num_key_value_heads": block.attention.kv_heads,
        "max_position_embeddings": anatomy.max_positions,
    }


def sizes_read(
    model: nn.Module, anatomy: Anatomy, micro_batches: Sequence[MicroBatch], device: torch.device
) -> dict[str, float]:
    """By linear behind a sub-norm, the root mean square of what it reads over the real tokens of
    ``micro_batches``; 1 where that is no size.
    """
    linears = [linear for _, linear in _readers(anatomy)]
    sums = dict.fromkeys((linear.name for linear in linears), 0.0)
    tokens = sum(batch.tokens for batch in micro_batches)
    for batch in micro_batches:
        with _summed(model, anatomy, linears, batch.attention_mask.to(device).bool(), sums), torch.no_grad():
            read(model, batch, device)
    found = {linear.name: math.sqrt(sums[linear.name] / (tokens * linear.in_features)) for linear in linears}
    return {name: size if math.isfinite(size) and size > 0 else 1.0 for name, size in found.items()}


@contextmanager
def _summed(
    model: nn.Module, anatomy: Anatomy, linears: Sequence[Linear], mask: Tensor, sums: dict[str, float]
) -> Iterator[None]:
    def hook(name: str) -> Any:
        def add(module: nn.Module, inputs: tuple[Tensor]) -> None:
            sums[name] += float(inputs[0][mask].square().sum())

        return add

    handles = [
        model.get_submodule(module_name(anatomy, linear.name)).register_forward_pre_hook(hook(linear.name))
        for linear in linears
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
