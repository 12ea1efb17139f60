"""compressed-tensors checkpoints: a ``QTensor`` as stored tensors and back, and ``quantization_config``.

Weight-only layers are ``pack-quantized`` (``weight_packed``, ``weight_scale``, ``weight_shape``,
``weight_zero_point``), W8A8 layers ``int-quantized`` (``weight`` int8, ``weight_scale``); a model that mixes
them is ``mixed-precision``. These are the forms that transformers and vLLM open; those of float formats are
in :mod:`.float_forms`.

Packed zero points are special: transformers 5.24 with compressed-tensors 0.20 reads them only when it
dequantizes while loading, with one scheme for the whole model and in the precision of the stored scale. So a
model of one asymmetric scheme asks for that in its config and stores float32 scales; beside other schemes,
asymmetric codes are ``int-quantized``, a byte each. Four-bit floats it unpacks to bfloat16, which float32
models cannot compute with, so that a model of one such scheme asks for the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ....errors import CheckpointError
from ...numbers.grid import storable
from ...numbers.qtensor import QTensor
from ...numbers.scheme import Scheme
from .float_forms import (
    FORMS,
    activations_of,
    float_scheme_of,
    restored_float,
    restored_input_scale,
    stored_float,
    weights_of,
)
from .packing import pack, unpack

PACKED, INTEGER, MIXED, DENSE = "pack-quantized", "int-quantized", "mixed-precision", "dense"


def forms(schemes: Iterable[Scheme]) -> dict[Scheme, str]:
    """The compressed-tensors format of each scheme of a model that holds all of ``schemes``."""
    distinct = list(dict.fromkeys(schemes))
    alone = len(distinct) == 1
    found: dict[Scheme, str] = {}
    for scheme in distinct:
        packed = not scheme.activations and (scheme.symmetric or alone)
        found[scheme] = FORMS.get(scheme.format) or (PACKED if packed else INTEGER)
    return found


def _stored_scale(tensor: QTensor) -> Tensor:
    half = tensor.scale.to(torch.float16)
    exact = torch.equal(half.to(torch.float32), tensor.scale) and torch.equal(
        storable(tensor.scale), tensor.scale
    )
    return half if exact and tensor.zero_point is None else tensor.scale


def stored(name: str, tensor: QTensor, form: str, largest: float | None = None) -> dict[str, Tensor]:
    """The tensors that store ``tensor`` as the module ``name``; ``form`` as :func:`forms` says,
    ``largest`` as in :func:`.float_forms.stored_float`.
    """
    scale = _stored_scale(tensor)
    if tensor.scheme.format != "int":
        return stored_float(name, tensor, scale, largest)
    if form == INTEGER:
        tensors = {f"{name}.weight": tensor.codes, f"{name}.weight_scale": scale}
        if tensor.input_scale is not None:
            tensors[f"{name}.input_scale"] = torch.tensor([tensor.input_scale])
        if tensor.zero_point is not None:
            tensors[f"{name}.weight_zero_point"] = tensor.zero_point
        return tensors
    tensors = {
        f"{name}.weight_packed": pack(tensor.codes, tensor.scheme.bits),
        f"{name}.weight_scale": scale,
        f"{name}.weight_shape": torch.tensor(tensor.shape, dtype=torch.int64),
    }
    if tensor.zero_point is not None:
        packed = pack(tensor.zero_point.T.contiguous(), tensor.scheme.bits)
        tensors[f"{name}.weight_zero_point"] = packed.T.contiguous()
    return tensors


def restored(name: str, scheme: Scheme, read: Callable[[str], Tensor], form: str) -> QTensor:
    """The ``QTensor`` stored as the module ``name`` in ``form``; ``read`` gives a stored tensor by name.

    Raises:
        CheckpointError: the stored tensors do not fit each other or the scheme.
    """
    if scheme.format != "int":
        return restored_float(name, scheme, read)
    scale = read(f"{name}.weight_scale").to(torch.float32)
    if form == INTEGER:
        zero_point = None if scheme.symmetric else read(f"{name}.weight_zero_point")
        inputs = restored_input_scale(name, scheme, read)
        return QTensor(scheme, read(f"{name}.weight"), scale, zero_point, inputs)
    out_features, in_features = (int(size) for size in read(f"{name}.weight_shape"))
    words = read(f"{name}.weight_packed")
    if words.shape != (out_features, -(-in_features * scheme.bits // 32)):
        raise CheckpointError(
            f"{name}.weight_packed has shape {tuple(words.shape)}, "
            f"which does not hold {scheme.bits}-bit codes of {out_features} × {in_features}"
        )
    zero_point = None
    if not scheme.symmetric:
        packed = read(f"{name}.weight_zero_point")
        zero_point = unpack(packed.T.contiguous(), scheme.bits, out_features).T.contiguous()
    return QTensor(scheme, unpack(words, scheme.bits, in_features), scale, zero_point)


def _weights_of(scheme: Scheme) -> dict[str, Any]:
    if scheme.format != "int":
        return weights_of(scheme)
    grouped = scheme.group_size is not None
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": "group" if grouped else "channel",
        "group_size": scheme.group_size,
        "dynamic": False,
    }


def quantization_config(
    schemes: Mapping[str, Scheme],
    form_of: Mapping[Scheme, str],
    unquantized: list[str],
    cache: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """``quantization_config`` for layers by name, stored as ``form_of`` says; ``unquantized`` names the other
    linear modules of the model, and ``cache`` is the scheme of its key/value cache.
    """
    by_scheme: dict[Scheme, list[str]] = defaultdict(list)
    for name, scheme in schemes.items():
        by_scheme[scheme].append(name)
    groups = {}
    for index, (scheme, names) in enumerate(by_scheme.items()):
        activations = activations_of(scheme) if scheme.format != "int" else None
        if scheme.activations and scheme.format == "int":
            activations = {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": scheme.activations,
                "dynamic": not scheme.calibrated,
            }
        groups[f"group_{index}"] = {
            "targets": ["Linear"] if len(by_scheme) == 1 else names,
            "weights": _weights_of(scheme),
            "input_activations": activations,
            "output_activations": None,
            "format": form_of[scheme],
        }
    found = {form_of[scheme] for scheme in by_scheme}
    packed_zero_points = any(form_of[scheme] == PACKED and not scheme.symmetric for scheme in by_scheme)
    dense = [scheme.bits == 4 and scheme.format != "int" and not scheme.activations for scheme in by_scheme]
    return {
        "quant_method": "compressed-tensors",
        "format": MIXED if len(found) > 1 else next(iter(found), DENSE),
        **({"dequantize": True} if packed_zero_points or dense == [True] else {}),
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": unquantized,
        "kv_cache_scheme": cache,
    }


def _scheme_of(group: Mapping[str, Any]) -> Scheme:
    weights, activations = group["weights"], group.get("input_activations")
    if weights.get("type") == "float":
        found = float_scheme_of(weights, activations)
        if found is not None:
            return found
    known = weights.get("type", "int") == "int" and weights.get("strategy") in ("group", "channel")
    if activations is not None:
        kinds = (("token", True), ("tensor", False))
        kind = (activations.get("strategy"), activations.get("dynamic"))
        known = known and activations.get("num_bits") == 8 and kind in kinds
    if not known:
        raise CheckpointError(
            f"this compressed-tensors scheme is not supported: {dict(group)}",
            fix="integer weights by group or channel, with int8 activations per token or static per tensor "
            "or without, and FP8, MXFP4 and NVFP4 as compressed-tensors' presets have them, are",
        )
    return Scheme(
        bits=weights["num_bits"],
        group_size=weights.get("group_size") if weights["strategy"] == "group" else None,
        symmetric=weights.get("symmetric", True),
        activations=activations["strategy"] if activations else None,
    )


def schemes_of(config: Mapping[str, Any], quantized: list[str]) -> dict[str, Scheme]:
    """The scheme of every module in ``quantized``, from a checkpoint's ``quantization_config``.

    Raises:
        CheckpointError: not compressed-tensors, or a scheme that edgepress cannot read.
    """
    settings = config.get("quantization_config")
    if not isinstance(settings, dict) or settings.get("quant_method") != "compressed-tensors":
        raise CheckpointError(
            "the checkpoint holds quantized weights but its quantization_config is not compressed-tensors"
        )
    schemes: dict[str, Scheme] = {}
    for group in settings.get("config_groups", {}).values():
        scheme = _scheme_of(group)
        for target in group["targets"]:
            for name in quantized:
                exact = target in ("Linear", name)
                if exact or (target.startswith("re:") and re.match(target[3:], name)):
                    schemes.setdefault(name, scheme)
    missing = [name for name in quantized if name not in schemes]
    if missing:
        raise CheckpointError(
            f"no group of quantization_config covers {missing[0]} (and {len(missing) - 1} more)"
        )
    return schemes
