"""``CacheBuffers``: one preallocated key and value buffer per layer, bound as past and as present at once.

``GroupQueryAttention`` writes new keys behind the old ones in place when both names point to the same memory,
so a step copies nothing. Capacity is the third axis: ``[batch, kv_heads, capacity, head_dim]``, or half
of ``head_dim`` where two 4-bit codes share a byte.

States of blocks without attention have a fixed size, which no capacity changes.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ...errors import OutOfResource
from ..bundle.graph_contract import KEYS_AND_VALUES, grows, present_of
from ..bundle.graph_sections import DecoderSection
from ..session.allocator import return_freed_memory
from ..session.session import onnxruntime


class CacheBuffers:
    """The buffers of one batch of sequences."""

    def __init__(self, section: DecoderSection, *, batch: int, capacity: int, device: str = "cpu") -> None:
        self.batch, self.capacity = batch, capacity
        self._section, self._device = section, device
        # What reading a tokenizer leaves free would stay resident, the more of it the smaller the cache.
        return_freed_memory()
        self._values: dict[str, Any] = {
            name: self._placed(self._zeros(shape, self._dtype(name))) for name, shape in self._all(capacity)
        }

    def _shapes(self, capacity: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        dtype = self._section.kv_dtype
        for index, layer in self._section.numbered():
            for part in ("key", "value"):
                name = f"{KEYS_AND_VALUES}{index}.{part}"
                yield name, (self.batch, layer.kv_heads, capacity, layer.width(dtype))

    def _states(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for state in self._section.states:
            yield f"past_{state.name}", (self.batch, *state.shape)

    def _all(self, capacity: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from self._shapes(capacity)
        yield from self._states()

    def _dtype(self, name: str) -> Any:
        return np.dtype(self._section.kv_dtype if grows(name) else np.float32).type

    def _zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        # Zeros, not empty: attention multiplies what lies behind the last token by 0, and 0 × NaN is NaN. The
        # pages are not touched before they are used, so unused capacity costs no memory.
        try:
            return np.zeros(shape, dtype=dtype)
        except (MemoryError, ValueError) as error:
            raise OutOfResource(
                f"no memory for a cache of shape {list(shape)}, the first axis for sequences",
                why=str(error),
                fix="use a shorter prompt or fewer new tokens",
            ) from None

    def _placed(self, array: np.ndarray[Any, Any]) -> Any:
        return onnxruntime().OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def bind(self, binding: Any) -> None:
        """Bind every buffer as both past and present."""
        for name, value in self._values.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(present_of(name), value)

    def bind_row(self, binding: Any, row: int) -> None:
        """Bind the buffers of one sequence, which lie side by side, as those of a batch of one."""
        for name, shape in self._all(self.capacity):
            dtype = self._dtype(name)
            single = [1, *shape[1:]]
            start = self._values[name].data_ptr() + row * prod(single) * np.dtype(dtype).itemsize
            place = (self._device, 0, dtype, single, start)
            binding.bind_input(name, *place)
            binding.bind_output(present_of(name), *place)

    def states(self) -> dict[str, np.ndarray[Any, Any]]:
        """A copy of what :meth:`restore` brings back: all that is of fixed size."""
        return {name: self._values[name].numpy().copy() for name, _ in self._states()}

    def restore(self, states: dict[str, np.ndarray[Any, Any]]) -> None:
        """Let the buffers of fixed size hold ``states`` again."""
        for name, value in states.items():
            self._values[name].update_inplace(value)

    def grow(self, capacity: int) -> None:
        """Move to buffers of ``capacity`` tokens that begin as the old ones, whole: edgepress's own attention
        keeps keys in blocks of 16 tokens, so that the first tokens alone cannot be split from the rest.
        """
        grown: dict[str, Any] = {}
        for name, shape in self._shapes(capacity):
            larger = self._zeros(shape, self._dtype(name))
            larger[:, :, : self.capacity] = self._values[name].numpy()
            grown[name] = self._placed(larger)
        self._values, self.capacity = self._values | grown, capacity
