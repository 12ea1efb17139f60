"""A checkpoint as a torch model that computes what the compressed model stands for: the reference for every
export.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..numbers.fake_quant import wrap
from ..numbers.input_rounding import rounding_of
from ..numbers.qtensor import QTensor
from .kv_tap import tap
from .module_names import module_name, stored_name
from .skeleton import Skeleton
from .weights import WeightSource


def load_model(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    embedding: bool = False,
    cache: bool = True,
) -> nn.Module:
    """The model at ``path``, dense or compressed, as a transformers module in eval mode.

    Quantized weights are dequantized and layers whose scheme says so round their inputs. With ``embedding``
    the embedding and the head are rounded as an export stores them. Attention reads keys and values as a
    quantized cache gives them back, where the checkpoint has scales for one and ``cache`` is set.

    Raises:
        CheckpointError: incomplete, inconsistent or unsupported files; non-finite weights (named).
    """
    source = WeightSource.open(path)
    skeleton = Skeleton(source, torch.device(device))
    anatomy = source.anatomy
    tied, copies = anatomy.head if anatomy.tied else None, anatomy.copies()
    for local, _ in list(skeleton.model.named_parameters(remove_duplicate=False)):
        stored = stored_name(anatomy, local)
        if stored in copies:
            continue
        skeleton.assign(skeleton.model, local, skeleton.value(stored))
    if embedding:
        for name in {anatomy.embedding, anatomy.head} - {None, tied}:
            table = source.table(str(name))
            if isinstance(table, QTensor):
                skeleton.assign(skeleton.submodule(str(name)), "weight", table.dequantize())
    if tied is not None:
        head, table_module = skeleton.submodule(tied), skeleton.submodule(anatomy.embedding)
        head.weight = table_module.weight
    for name in anatomy.embedding_copies:  # one module: what becomes of the table becomes of them
        skeleton.model.set_submodule(module_name(anatomy, name), skeleton.submodule(anatomy.embedding))
    for name, scheme in source.schemes.items():
        if scheme.activations:
            wrap(skeleton.model, module_name(anatomy, name), rounding_of(scheme, source.input_scale(name)))
    if cache:
        for block in anatomy.blocks:
            scales = source.kv_scales(block.attention)
            if scales is not None:
                tap(skeleton.submodule(block.attention.module), scales.round)
    for parameter in skeleton.model.parameters():  # not the buffers: frequencies stay in float32
        parameter.data = parameter.data.to(dtype)
    return skeleton.model.eval()
