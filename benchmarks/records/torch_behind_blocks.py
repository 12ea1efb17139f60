"""transformers' decoders cut in front of their heads: see :mod:`.behind_blocks`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .behind_blocks import Numbers


class TorchBehindBlocks:
    """transformers' ``model``. Of states it computes what it does with all of its parts, by the same code on
    the same numbers: what comes before is passed over.
    """

    def __init__(self, model: nn.Module, device: torch.device, width: int) -> None:
        self._model, self._device, self.width = model, device, width
        decoder: Any = model.get_decoder()  # type: ignore[operator]
        self._blocks: nn.Module = decoder

    @torch.inference_mode()
    def read(self, input_ids: NDArray[np.int64]) -> tuple[Numbers, Numbers | None]:
        """As :meth:`BehindBlocks.read`."""
        seen: list[torch.Tensor] = []
        handle = self._blocks.register_forward_hook(lambda *given: seen.append(given[-1][0]))
        try:
            logits = self._logits(torch.from_numpy(np.ascontiguousarray(input_ids)))
        finally:
            handle.remove()
        if self._blocks is self._model or len(seen) != 1 or seen[0].dtype != torch.float32:
            return logits, None
        return logits, seen[0].cpu().numpy() if seen[0].shape[-1] == self.width else None

    @torch.inference_mode()
    def logits(self, states: Numbers) -> Numbers:
        """As :meth:`BehindBlocks.logits`."""
        batch, length, _ = states.shape
        # In memory of torch's own, aligned as it was: sums may depend on that.
        with self._blocks_give(torch.tensor(states, device=self._device)):
            return self._logits(torch.zeros(batch, length, dtype=torch.int64))

    def _logits(self, ids: torch.Tensor) -> Numbers:
        ids = ids.to(self._device)
        found = self._model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        return np.asarray(found.float().cpu().numpy(), np.float32)

    @contextmanager
    def _blocks_give(self, states: torch.Tensor) -> Iterator[None]:
        blocks: Any = self._blocks
        blocks.forward = lambda *_, **__: _LastStates(states)
        try:
            yield
        finally:
            del blocks.forward


class _LastStates:
    """What a stack of blocks returns, where nothing but its last states is asked for."""

    def __init__(self, states: torch.Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, place: int) -> torch.Tensor:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        """Caches, attentions, the choices of routers: none."""
        return
