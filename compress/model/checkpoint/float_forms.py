"""Layers in FP8, MXFP4 and NVFP4 as compressed-tensors stores them, and their part of quantization_config.

``float-quantized``: ``weight`` E4M3, ``weight_scale`` a row, ``input_scale`` where activations are static.
``mxfp4-pack-quantized`` and ``nvfp4-pack-quantized``: two codes a byte in ``weight_packed``, the first one
low, bit 3 the sign; ``weight_scale`` E8M0 (the exponent plus 127) or E4M3, and for NVFP4 what the scales are
multiplied by, ``weight_global_scale`` and ``input_global_scale``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ....errors import CheckpointError
from ...numbers.number_format import E4M3, unit_of
from ...numbers.qtensor import QTensor
from ...numbers.scheme import Format, Scheme

FORMS: dict[Format, str] = {
    "fp8": "float-quantized",
    "mxfp4": "mxfp4-pack-quantized",
    "nvfp4": "nvfp4-pack-quantized",
}
PARTS = ("weight_packed", "weight_scale", "weight_global_scale", "input_scale", "input_global_scale")

_POINTS = torch.tensor([0, 1, 2, 3, 4, 6, 8, 12], dtype=torch.int8)  # of E2M1, doubled, by index
_BIAS = 127  # of E8M0


def pack_e2m1(codes: Tensor) -> Tensor:
    """``codes [rows, columns]``, points doubled, as bytes ``[rows, columns / 2]``."""
    index = torch.searchsorted(_POINTS.to(codes.device), codes.abs()).to(torch.uint8)
    index |= (codes < 0).to(torch.uint8) << 3
    return index[:, ::2] | index[:, 1::2] << 4


def unpack_e2m1(packed: Tensor) -> Tensor:
    """Inverse of :func:`pack_e2m1`."""
    index = torch.stack((packed & 15, packed >> 4), -1).flatten(1)
    points = _POINTS.to(packed.device)[(index & 7).long()]
    return torch.where(index >= 8, -points, points)


def stored_float(name: str, tensor: QTensor, scale: Tensor, largest: float | None) -> dict[str, Tensor]:
    """The tensors that store ``tensor`` as the module ``name``; ``scale`` as the integer forms store it, and
    ``largest`` the largest scale of the matrices that a runtime joins with this one.

    Raises:
        CheckpointError: scales that this form cannot hold exactly.
    """
    tensors: dict[str, Tensor] = {}
    if tensor.scheme.format == "fp8":
        tensors = {f"{name}.weight": tensor.codes, f"{name}.weight_scale": scale}
        if tensor.input_scale is not None:
            tensors[f"{name}.input_scale"] = torch.tensor([tensor.input_scale])
        return tensors
    block = 2 * tensor.scale
    tensors[f"{name}.weight_packed"] = pack_e2m1(tensor.codes)
    if tensor.scheme.format == "mxfp4":
        exponent = torch.frexp(block).exponent - 1
        tensors[f"{name}.weight_scale"] = (exponent + _BIAS).to(torch.uint8)
        return tensors
    unit = _unit(name, block, largest)
    tensors[f"{name}.weight_scale"] = (block / unit).to(E4M3)
    tensors[f"{name}.weight_global_scale"] = torch.tensor([1 / unit])
    if tensor.input_scale is not None:
        tensors[f"{name}.input_global_scale"] = torch.tensor([1 / tensor.input_scale])
    return tensors


def _unit(name: str, block: Tensor, largest: float | None) -> float:
    """The power of two that the scales ``block [out, groups]`` of an NVFP4 layer are stored in."""
    own = float(block.max())
    units = [unit_of(own if largest is None else 2 * largest), unit_of(own)]
    exact = [unit for unit in units if torch.equal((block / unit).to(E4M3).to(torch.float32) * unit, block)]
    if not exact:
        raise CheckpointError(
            f"{name} has NVFP4 scales that count in no power of two",
            why="another tool wrote them, and a layer that is not changed is kept bit for bit",
            fix="start from the model as it was before it was quantized",
        )
    return exact[0]


def restored_float(name: str, scheme: Scheme, read: Callable[[str], Tensor]) -> QTensor:
    """The ``QTensor`` stored as the module ``name``; ``read`` gives a stored tensor by name."""
    scale = read(f"{name}.weight_scale")
    inputs = restored_input_scale(name, scheme, read)
    if scheme.format == "fp8":
        codes = read(f"{name}.weight")
        wide = scale.to(torch.float32).reshape(-1, 1).expand(codes.shape[0], 1).contiguous()
        return QTensor(scheme, codes, wide, None, inputs)
    codes = unpack_e2m1(read(f"{name}.weight_packed"))
    if scheme.format == "mxfp4":
        exponent = scale.to(torch.int32) - _BIAS
        return QTensor(scheme, codes, torch.ldexp(torch.full(scale.shape, 0.5), exponent), None, inputs)
    divisor = read(f"{name}.weight_global_scale").to(torch.float32)
    return QTensor(scheme, codes, scale.to(torch.float32) / divisor / 2, None, inputs)


def restored_input_scale(name: str, scheme: Scheme, read: Callable[[str], Tensor]) -> float | None:
    """``QTensor.input_scale`` of the module ``name``."""
    if not scheme.calibrated:
        return None
    if scheme.format != "nvfp4":
        return float(read(f"{name}.input_scale"))
    return 1 / float(read(f"{name}.input_global_scale"))


def weights_of(scheme: Scheme) -> dict[str, Any]:
    """The ``weights`` of a group of quantization_config."""
    described = {"num_bits": scheme.bits, "type": "float", "symmetric": True, "dynamic": False}
    if scheme.format == "fp8":
        return {**described, "strategy": "channel", "group_size": None}
    return {**described, **_grouped(scheme)}


def activations_of(scheme: Scheme) -> dict[str, Any] | None:
    """The ``input_activations`` of a group of quantization_config."""
    if scheme.activations is None:
        return None
    described: dict[str, Any] = {"num_bits": scheme.bits, "type": "float", "symmetric": True}
    if scheme.format == "fp8":
        return {**described, "strategy": scheme.activations, "dynamic": not scheme.calibrated}
    return {**described, **_grouped(scheme), "dynamic": "local" if scheme.calibrated else True}


def _grouped(scheme: Scheme) -> dict[str, Any]:
    scale = ("group", "torch.uint8") if scheme.format == "mxfp4" else ("tensor_group", "torch.float8_e4m3fn")
    return {"strategy": scale[0], "group_size": scheme.group_size, "scale_dtype": scale[1]}


def float_scheme_of(weights: Mapping[str, Any], activations: Mapping[str, Any] | None) -> Scheme | None:
    """The scheme that a group of quantization_config describes; None when edgepress has no such scheme."""
    kind = (weights.get("num_bits"), weights.get("strategy"), weights.get("group_size"))
    names: dict[tuple[Any, Any, Any], tuple[str, ...]] = {
        (8, "channel", None): ("FP8_DYNAMIC", "FP8"),
        (8, "tensor", None): ("FP8_DYNAMIC", "FP8"),
        (4, "group", 32): ("MXFP4A16", "MXFP4"),
        (4, "tensor_group", 16): ("NVFP4A16", "NVFP4"),
    }
    for name in names.get(kind, ()):
        scheme = Scheme.parse(name)
        wanted = activations_of(scheme)
        if wanted is None or activations is None:
            same = wanted is activations
        else:
            same = all(activations.get(key) == wanted[key] for key in ("num_bits", "strategy", "dynamic"))
        if same:
            return scheme
    return None
