"""``KVScheme``: how a decoder's key/value cache is quantized; ``KVScales``: the scales of one attention; and
how a checkpoint stores both.

Symmetric integers with static scales: a cache is written one token at a time, so that its grid must be known
before the text is. ``ATTENTION.k_scale`` and ``ATTENTION.v_scale`` are compressed-tensors' names. One scale a
layer is its own form, ``kv_cache_scheme`` with the strategy ``tensor``. For a scale for each channel of a
head it has no form (version 0.20 knows ``tensor`` and ``attn_head``), so that the scheme is edgepress's own
key of the config: other readers see a float cache, and two tensors a layer that they do not know. So it is of
encoder–decoders with either: compressed-tensors would look for scales in the attention of encoders, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ...errors import CheckpointError
from .block_anatomy import Attention


class KVScheme(BaseModel):
    """Bits and granularity of a quantized cache, the same in every layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: Literal[8, 4] = Field(8, description="of each cached number")
    granularity: Literal["per-tensor", "per-channel"] = Field(
        "per-channel", description="one scale a layer, or one for each channel of each key/value head"
    )

    @property
    def name(self) -> str:
        """``KV8-channel`` or ``KV8-tensor``: how tables call it."""
        return f"KV{self.bits}-{self.granularity.removeprefix('per-')}"

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code, both inclusive."""
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1

    def scale_shape(self, attention: Attention) -> tuple[int, ...]:
        """Shape of the key's and of the value's scale: ``[1]`` or ``[kv_heads, 1, head_dim]``."""
        return (1,) if self.granularity == "per-tensor" else (attention.kv_heads, 1, attention.head_dim)

    def codes(self, values: Tensor, scale: Tensor) -> Tensor:
        """Nearest codes (float, integral) of ``values [batch, kv_heads, tokens, head_dim]``."""
        return (values / scale).round_().clamp_(*self.code_range)


@dataclass(frozen=True)
class KVScales:
    """The scales of one attention, float32: ``key`` of keys after rope, as they are cached, and ``value``."""

    scheme: KVScheme
    key: Tensor
    value: Tensor

    def round(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What a cache gives back for ``key`` and ``value [batch, kv_heads, tokens, head_dim]``."""
        return self._rounded(key, self.key), self._rounded(value, self.value)

    def _rounded(self, values: Tensor, scale: Tensor) -> Tensor:
        scale = scale.to(values.device)
        codes = self.scheme.codes(values.to(torch.float32), scale)
        return codes.mul_(scale).to(values.dtype)


OWN_KEY = "edgepress_kv_cache"
KEY_SCALE, VALUE_SCALE = "k_scale", "v_scale"


def stored_scales(scales: Mapping[str, KVScales]) -> dict[str, Tensor]:
    """The tensors that store ``scales``, by the module of their attention."""
    keys = {f"{module}.{KEY_SCALE}": one.key for module, one in scales.items()}
    return keys | {f"{module}.{VALUE_SCALE}": one.value for module, one in scales.items()}


def is_scale(name: str) -> bool:
    """Whether a stored tensor is the scale of a cache."""
    return name.rpartition(".")[2] in (KEY_SCALE, VALUE_SCALE)


def restored_scales(attention: Attention, scheme: KVScheme, read: Callable[[str], Tensor]) -> KVScales:
    """The scales of one attention; ``read`` gives a stored tensor by name."""
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


def own_form(scheme: KVScheme) -> dict[str, Any]:
    """The entries of ``config.json`` for a scheme that compressed-tensors is not to see."""
    return {OWN_KEY: {"num_bits": scheme.bits, "strategy": scheme.granularity.removeprefix("per-")}}


def stated(scheme: KVScheme | None, kind: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """``kv_cache_scheme`` of ``quantization_config`` for a model of this ``kind``, or None, and what
    ``config.json`` says in its place.
    """
    if scheme is None:
        return None, {}
    form = None if kind == "encoder_decoder" else ecosystem_form(scheme)
    return form, own_form(scheme) if form is None else {}


def kv_scheme_of(config: Mapping[str, Any]) -> KVScheme | None:
    """The scheme that a checkpoint's ``config.json`` names, or None for a float cache."""
    settings = config.get("quantization_config")
    named = settings.get("kv_cache_scheme") if isinstance(settings, dict) else None
    own = config.get(OWN_KEY)
    if named is None and own is None:
        return None
    for bits, granularity in product((8, 4), ("per-tensor", "per-channel")):
        scheme = KVScheme.model_validate({"bits": bits, "granularity": granularity})
        form = ecosystem_form(scheme)
        if own is None and form is not None and _says(named, form):
            return scheme
        if named is None and own_form(scheme)[OWN_KEY] == own:
            return scheme
    raise CheckpointError(
        f"this scheme of a key/value cache is not supported: {named if own is None else own!r}",
        fix="static symmetric int8 or int4, with one scale a layer or one a channel, is",
    )


def _says(named: Any, form: dict[str, Any]) -> bool:
    """Whether a stored ``kv_cache_scheme`` is ``form``; other writers omit defaults and add their own."""
    if not isinstance(named, dict):
        return False
    return all(named.get(key, value) == value for key, value in form.items()) and "num_bits" in named
