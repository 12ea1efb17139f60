"""A checkpoint as a torch model that computes what the compressed model stands for: the reference for every
export.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..numbers.fake_quant import rounding_of, wrap
from ..numbers.table_rounding import quantize_table
from .anatomy import module_name, stored_name
from .kv_scheme import tap
from .skeleton import Skeleton
from .weights import WeightSource


def label_logits(output: Any) -> torch.Tensor:
    """The logits ``[…, labels]`` of a classifier's ``output``; of spans, those of their first and last tokens
    side by side.
    """
    logits: torch.Tensor | None = output.get("logits")
    return torch.stack([output.start_logits, output.end_logits], -1) if logits is None else logits


def tower_vectors(output: Any) -> torch.Tensor:
    """The vectors ``[batch, size]`` of length 1 of a tower's ``output``."""
    names = ("image_embeds", "text_embeds", "pooler_output")
    found: torch.Tensor = next(output[name] for name in names if output.get(name) is not None)
    return torch.nn.functional.normalize(found, dim=-1)


def load_model(
    checkpoint: Path | WeightSource,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    embedding: bool = False,
    activations: bool = True,
    cache: bool = True,
) -> nn.Module:
    """The model ``checkpoint``, dense or compressed, as a transformers module in eval mode.

    Quantized weights are dequantized. With ``embedding`` the embedding and the head are rounded as an export
    stores them; with ``activations`` layers round their inputs as their scheme requires; with ``cache``
    attention reads keys and values as a quantized cache gives them back, where the checkpoint has scales.
    """
    source = WeightSource.open(checkpoint) if isinstance(checkpoint, Path) else checkpoint
    skeleton = Skeleton(source, torch.device(device))
    anatomy = source.anatomy
    tied = anatomy.head if anatomy.tied else None
    elsewhere = (*anatomy.copies(), *(f"{name}.weight" for name in anatomy.computed))
    for local, _ in list(skeleton.model.named_parameters(remove_duplicate=False)):
        stored = stored_name(anatomy, local)
        if stored in elsewhere:
            continue
        skeleton.assign(skeleton.model, local, source.tensor(stored))
    if tied is not None:
        skeleton.submodule(tied).weight = skeleton.submodule(anatomy.embedding).weight
    for name in anatomy.embedding_copies:  # one module: what becomes of the table becomes of them
        skeleton.model.set_submodule(module_name(anatomy, name), skeleton.submodule(anatomy.embedding))
    if embedding:
        round_tables(skeleton.model, source)
    if activations:
        round_inputs(skeleton.model, source)
    if cache:
        round_cache(skeleton.model, source)
    for parameter in skeleton.model.parameters():  # not the buffers: frequencies stay in float32
        parameter.data = parameter.data.to(dtype)
    return skeleton.model.eval()


def round_tables(model: nn.Module, source: WeightSource) -> None:
    """Round embedding and head of ``model``, in float32, as exports of ``source`` store them."""
    anatomy = source.anatomy
    tied = anatomy.head if anatomy.tied else None
    for name in {anatomy.embedding, anatomy.head} - {None, tied}:
        scheme = source.table_scheme(str(name))
        if scheme is None:
            continue
        weight = model.get_submodule(module_name(anatomy, str(name))).weight
        assert isinstance(weight, nn.Parameter)
        # In place: a tied head shares the parameter. On the CPU: sums, and so scales, are the export's.
        weight.data = quantize_table(weight.data.cpu(), scheme).dequantize().to(weight.device)


def round_inputs(model: nn.Module, source: WeightSource, prefix: str = "") -> list[str]:
    """Let the layers of ``model`` below ``prefix`` whose scheme quantizes activations round their inputs;
    returns the paths of their modules.
    """
    rounded = []
    for name, scheme in source.schemes.items():
        if scheme.activations and name.startswith(prefix):
            rounded.append(module_name(source.anatomy, name))
            wrap(model, rounded[-1], rounding_of(scheme, source.input_scale(name)))
    return rounded


def round_cache(model: nn.Module, source: WeightSource) -> list[RemovableHandle]:
    """Let attention of ``model`` read keys and values as the quantized cache of ``source`` gives them back,
    until the handles are removed; none where its cache is in float.
    """
    handles = []
    for block in source.anatomy.blocks:
        for module, scales in source.block_scales(block).items():
            attention = model.get_submodule(module_name(source.anatomy, module))
            handles.append(tap(attention, scales.round))
    return handles
