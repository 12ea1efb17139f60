"""The scales of a quantized key/value cache as stored tensors, and the scheme in ``config.json``.

``ATTENTION.k_scale`` and ``ATTENTION.v_scale`` are compressed-tensors' names. One scale a layer is its own
form, ``kv_cache_scheme`` with the strategy ``tensor``. For a scale for each channel of a head it has no form
(version 0.20 knows ``tensor`` and ``attn_head``), so that the scheme is edgepress's own key of the config:
other readers see a float cache, and two tensors a layer that they do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ....errors import CheckpointError
from ..block_anatomy import Attention
from ..kv_scheme import KVScales, KVScheme

OWN_KEY = "edgepress_kv_cache"
KEY_SCALE, VALUE_SCALE = "k_scale", "v_scale"


def stored_scales(attention: Attention, scales: KVScales) -> dict[str, Tensor]:
    """The tensors that store the scales of one block."""
    return {
        f"{attention.module}.{KEY_SCALE}": scales.key,
        f"{attention.module}.{VALUE_SCALE}": scales.value,
    }


def is_scale(name: str) -> bool:
    """Whether a stored tensor is the scale of a cache."""
    return name.rpartition(".")[2] in (KEY_SCALE, VALUE_SCALE)


def restored_scales(attention: Attention, scheme: KVScheme, read: Callable[[str], Tensor]) -> KVScales:
    """The scales of one block; ``read`` gives a stored tensor by name.

    Raises:
        CheckpointError: they are missing, of another shape, or not positive and finite.
    """
    found = []
    for part in (KEY_SCALE, VALUE_SCALE):
        name = f"{attention.module}.{part}"
        scale = read(name)
        shape = scheme.scale_shape(attention)
        if tuple(scale.shape) != shape or not scale.is_floating_point():
            raise CheckpointError(
                f"tensor {name!r} has shape {list(scale.shape)} of {scale.dtype}, "
                f"{scheme.name} has floats of shape {list(shape)}"
            )
        scale = scale.to(torch.float32)
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise CheckpointError(f"tensor {name!r} holds a scale that is not a positive finite number")
        found.append(scale)
    return KVScales(scheme, *found)


def ecosystem_form(scheme: KVScheme) -> dict[str, Any] | None:
    """``kv_cache_scheme`` of ``quantization_config``, or None where compressed-tensors has no form for it."""
    if scheme.granularity != "per-tensor":
        return None
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": True,
        "strategy": "tensor",
        "dynamic": False,
    }


def own_form(scheme: KVScheme | None) -> dict[str, Any]:
    """The entries of ``config.json`` for a scheme that compressed-tensors has no form for."""
    if scheme is None or ecosystem_form(scheme) is not None:
        return {}
    return {OWN_KEY: {"num_bits": scheme.bits, "strategy": "channel"}}


def kv_scheme_of(config: Mapping[str, Any]) -> KVScheme | None:
    """The scheme that a checkpoint's ``config.json`` names, or None for a float cache.

    Raises:
        CheckpointError: a scheme that edgepress cannot read.
    """
    settings = config.get("quantization_config")
    named = settings.get("kv_cache_scheme") if isinstance(settings, dict) else None
    own = config.get(OWN_KEY)
    if named is None and own is None:
        return None
    for bits, granularity in product((8, 4), ("per-tensor", "per-channel")):
        scheme = KVScheme.model_validate({"bits": bits, "granularity": granularity})
        if _says(named, ecosystem_form(scheme)) and own_form(scheme).get(OWN_KEY) == own:
            return scheme
    raise CheckpointError(
        f"this scheme of a key/value cache is not supported: {named if own is None else own!r}",
        fix="static symmetric int8 or int4, with one scale a layer or one a channel, is",
    )


def _says(named: Any, form: dict[str, Any] | None) -> bool:
    """Whether a stored ``kv_cache_scheme`` is ``form``; other writers omit defaults and add their own."""
    if form is None or not isinstance(named, dict):
        return named is form
    return all(named.get(key, value) == value for key, value in form.items()) and "num_bits" in named
