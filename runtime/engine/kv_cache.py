"""``CacheBuffers``: one preallocated key and value buffer per layer, bound as past and as present at once.

``GroupQueryAttention`` writes new keys behind the old ones in place when both names point to the same memory,
so a step copies nothing. Capacity is the third axis: ``[batch, kv_heads, capacity, head_dim]``, or half
of ``head_dim`` where two 4-bit codes share a byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ...errors import OutOfResource
from ..bundle.manifest import DecoderSection
from ..session.session import onnxruntime


class CacheBuffers:
    """The buffers of one batch of sequences.

    Raises:
        OutOfResource: they do not fit in memory.
    """

    def __init__(self, section: DecoderSection, *, batch: int, capacity: int, device: str = "cpu") -> None:
        self.batch, self.capacity = batch, capacity
        self._section, self._device = section, device
        self._values: dict[str, Any] = {
            name: self._placed(self._zeros(shape)) for name, shape in self._shapes(capacity)
        }

    def _shapes(self, capacity: int) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
        dtype = self._section.kv_dtype
        for index, layer in enumerate(self._section.layers):
            for part in ("key", "value"):
                yield f"{index}.{part}", (self.batch, layer.kv_heads, capacity, layer.width(dtype))

    def _zeros(self, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        # Zeros, not empty: attention multiplies what lies behind the last token by 0, and 0 × NaN is NaN. The
        # pages are not touched before they are used, so unused capacity costs no memory.
        try:
            return np.zeros(shape, dtype=self._section.kv_dtype)
        except (MemoryError, ValueError) as error:
            raise OutOfResource(
                f"no memory for the keys and values of {shape[2]} tokens × {shape[0]} sequences",
                why=str(error),
                fix="use a shorter prompt or fewer new tokens",
            ) from None

    def _placed(self, array: np.ndarray[Any, Any]) -> Any:
        return onnxruntime().OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def bind(self, binding: Any) -> None:
        """Bind every buffer as both past and present."""
        for name, value in self._values.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)

    def bind_row(self, binding: Any, row: int) -> None:
        """Bind the buffers of one sequence, which lie side by side, as those of a batch of one."""
        dtype = np.dtype(self._section.kv_dtype).type
        for name, shape in self._shapes(self.capacity):
            single = [1, *shape[1:]]
            start = self._values[name].data_ptr() + row * prod(single) * np.dtype(dtype).itemsize
            place = (self._device, 0, dtype, single, start)
            binding.bind_input(f"past_key_values.{name}", *place)
            binding.bind_output(f"present.{name}", *place)

    def grow(self, capacity: int) -> None:
        """Move to buffers of ``capacity`` tokens that begin as the old ones, whole: edgepress's own attention
        keeps keys in blocks of 16 tokens, so that the first tokens alone cannot be split from the rest.
        """
        grown: dict[str, Any] = {}
        for name, shape in self._shapes(capacity):
            larger = self._zeros(shape)
            larger[:, :, : self.capacity] = self._values[name].numpy()
            grown[name] = self._placed(larger)
        self._values, self.capacity = grown, capacity
