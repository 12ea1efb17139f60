"""``quantization_config`` of a compressed-tensors checkpoint: in which form each scheme is stored, and which
schemes a config names.

Weight-only layers are ``pack-quantized`` (``weight_packed``, ``weight_scale``, ``weight_shape``,
``weight_zero_point``), W8A8 layers ``int-quantized`` (``weight`` int8, ``weight_scale``); a model that mixes
them is ``mixed-precision``.

Packed zero points are special: transformers 5.24 with compressed-tensors 0.20 reads them only when it
dequantizes while loading, with one scheme for the whole model and in the precision of the stored scale. So a
model of one asymmetric scheme asks for that in its config and stores float32 scales; beside other schemes,
asymmetric codes are ``int-quantized``, a byte each. Four-bit floats it unpacks to bfloat16, which float32
models cannot compute with, so that a model of one such scheme asks for the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ....errors import CheckpointError
from ...numbers.scheme import Format, Scheme

PACKED, INTEGER, MIXED, DENSE = "pack-quantized", "int-quantized", "mixed-precision", "dense"
_FLOAT_FORMS: dict[Format, str] = {
    "fp8": "float-quantized",
    "mxfp4": "mxfp4-pack-quantized",
    "nvfp4": "nvfp4-pack-quantized",
}


def forms(schemes: Iterable[Scheme]) -> dict[Scheme, str]:
    """The compressed-tensors format of each scheme of a model that holds all of ``schemes``."""
    distinct = list(dict.fromkeys(schemes))
    alone = len(distinct) == 1
    found: dict[Scheme, str] = {}
    for scheme in distinct:
        packed = not scheme.activations and (scheme.symmetric or alone)
        found[scheme] = _FLOAT_FORMS.get(scheme.format) or (PACKED if packed else INTEGER)
    return found


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
        activations = _float_activations_of(scheme) if scheme.format != "int" else None
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


def _weights_of(scheme: Scheme) -> dict[str, Any]:
    if scheme.format != "int":
        return _float_weights_of(scheme)
    grouped = scheme.group_size is not None
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": "group" if grouped else "channel",
        "group_size": scheme.group_size,
        "dynamic": False,
    }


def _float_weights_of(scheme: Scheme) -> dict[str, Any]:
    """The ``weights`` of a group of quantization_config."""
    described = {"num_bits": scheme.bits, "type": "float", "symmetric": True, "dynamic": False}
    if scheme.format == "fp8":
        return {**described, "strategy": "channel", "group_size": None}
    return {**described, **_grouped(scheme)}


def _float_activations_of(scheme: Scheme) -> dict[str, Any] | None:
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


def _scheme_of(group: Mapping[str, Any]) -> Scheme:
    weights, activations = group["weights"], group.get("input_activations")
    if weights.get("type") == "float":
        found = _float_scheme_of(weights, activations)
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


def _float_scheme_of(weights: Mapping[str, Any], activations: Mapping[str, Any] | None) -> Scheme | None:
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
        wanted = _float_activations_of(scheme)
        if wanted is None or activations is None:
            same = wanted is activations
        else:
            same = all(activations.get(key) == wanted[key] for key in ("num_bits", "strategy", "dynamic"))
        if same:
            return scheme
    return None
