"""Where a transformers module hands its keys and values to the cache: seen or changed there, after rope.

Attention modules call ``update`` of a cache object if they are given one. A hook gives each its own, which
passes on what it gets to the cache that the caller brought, if any.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from inspect import signature
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...errors import CheckpointError

# What transformers' attention modules call the cache, by version and family.
CACHE_NAMES = ("cache", "past_key_values", "layer_past", "past_key_value")

# From key and value ``[batch, kv_heads, tokens, head_dim]`` to those that attention reads.
Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# The two caches of the decoder of an encoder–decoder, in transformers' one.
_BOTH = ("self_attention_cache", "cross_attention_cache")


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
