"""``KVScheme``: how a decoder's key/value cache is quantized; ``KVScales``: the scales of one attention; and
how a checkpoint stores both.

Symmetric integers with static scales: a cache is written one token at a time, so that its grid must be known
before the text is. ``ATTENTION.k_scale`` and ``ATTENTION.v_scale`` are compressed-tensors' names. One scale a
layer is its own form, ``kv_cache_scheme`` with the strategy ``tensor``. For a scale for each channel of a
head it has no form (version 0.20 knows ``tensor`` and ``attn_head``), so that the scheme is edgepress's own
key of the config: other readers see a float cache, and two tensors a layer that they do not know. So it is of
encoder–decoders with either: compressed-tensors would look for scales in the attention of encoders, too.

Where a transformers module hands its keys and values to the cache: seen or changed there, after rope.

Attention modules call ``update`` of a cache object if they are given one. A hook gives each its own, which
passes on what it gets to the cache that the caller brought, if any.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from inspect import signature
from itertools import product
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...errors import CheckpointError
from .block_anatomy import Attention

# What transformers' attention modules call the cache, by version and family.
CACHE_NAMES = ("cache", "past_key_values", "layer_past", "past_key_value")
# From key and value ``[batch, kv_heads, tokens, head_dim]`` to those that attention reads.
Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# The two caches of the decoder of an encoder–decoder, in transformers' one.
_BOTH = ("self_attention_cache", "cross_attention_cache")


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


class _Tap:
    """A cache that changes what is put into it, in which each key and value head stands ``repeats`` times."""

    def __init__(self, change: Change, inner: Any, repeats: int) -> None:
        self._change, self._inner, self._repeats = change, inner, repeats

    def update(self, key: Tensor, value: Tensor, *place: Any, **options: Any) -> tuple[Tensor, Tensor]:
        key, value = self._change(key[:, :: self._repeats], value[:, :: self._repeats])
        if self._repeats > 1:
            key, value = (part.repeat_interleave(self._repeats, 1) for part in (key, value))
        if self._inner is None:
            return key, value
        return self._inner.update(key, value, *place, **options)  # type: ignore[no-any-return]

    def get_seq_length(self, *place: Any) -> int:
        return 0 if self._inner is None else self._inner.get_seq_length(*place)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _tapped(change: Change, inner: Any, repeats: int) -> Any:
    """What attention is given in the place of the cache ``inner``: of two caches, both of them changed, in
    one that shares with ``inner`` which layers have read the encoder's states.
    """
    if not all(hasattr(inner, part) for part in _BOTH):
        return _Tap(change, inner, repeats)
    both = copy(inner)
    for part in _BOTH:
        setattr(both, part, _Tap(change, getattr(inner, part), repeats))
    return both


def tap(attention: nn.Module, change: Change) -> RemovableHandle:
    """Let ``change`` work on the keys and values of the module ``attention`` until the handle is removed."""
    parameters = signature(attention.forward).parameters
    name = next((name for name in CACHE_NAMES if name in parameters), None)
    if name is None:
        raise CheckpointError(
            f"the attention of this model ({type(attention).__name__}) takes no key/value cache in this "
            "version of transformers",
            fix="leave its cache in float",
        )

    module: Any = attention
    grouped = bool(getattr(module, "new_decoder_architecture", False))  # Falcon's larger form
    repeats = module.num_heads // module.num_kv_heads if grouped else 1

    def give(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return positional, {**named, name: _tapped(change, named.get(name), repeats)}

    return attention.register_forward_pre_hook(give, with_kwargs=True)
