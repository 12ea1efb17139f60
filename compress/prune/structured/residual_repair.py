"""What makes up for directions that the residual stream has lost, in closed form, block after block.

Two streams run side by side: the original's states, and those of the narrower model as it is by then. Each
group of linears that reads a norm takes in the map from the states it has now to those it had
(:mod:`.residual_fit`); each linear that writes is fitted to its own inputs, so that the narrow sum comes
closest to the original's (:mod:`.residual_error`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ...model.block_anatomy import BlockAnatomy, Linear, Norm
from ...pipeline.block import LayerStatus
from ...pipeline.forward import Batch
from ...rotate.rotation import FusedTensors
from .residual_cut import scale_of
from .residual_error import Gap, fit_gap, seen
from .residual_fit import Reading, fit_reading
from .residual_seen import normalized, real

Masks = Sequence[Tensor | None]

UNREPAIRED = ("fallback-unrepaired", "the Gram is not positive definite")


class _Reached(Exception):
    pass


def inputs_of(linear: nn.Module, run: Callable[[], object]) -> Tensor:
    """What ``linear`` is given while ``run`` goes on, which ends there."""
    found: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])
        raise _Reached

    handle = linear.register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            run()
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0]


class _Rms(nn.Module):
    def __init__(self, scale: float, eps: float) -> None:
        super().__init__()
        self.scale, self.eps = scale, eps

    def forward(self, states: Tensor) -> Tensor:
        return self.scale * normalized(states, self.eps)


class NarrowBlock:
    """A block cut to ``basis [hidden, kept]``; ``tensors`` are its parameters, which the repair changes.

    ``damping`` None is chosen anew for each fit, by halves of the text.
    """

    def __init__(
        self,
        block: BlockAnatomy,
        original: nn.Module,
        tensors: FusedTensors,
        basis: Tensor,
        *,
        repairs: bool,
        damping: float | None,
    ) -> None:
        self.block, self.original, self.tensors = block, original, tensors
        self.repairs, self.damping = repairs, damping
        self.basis, self.scale = basis.to(torch.float32), scale_of(basis)
        self.module = deepcopy(original)
        self.statuses: list[LayerStatus] = []
        for linear in block.linears():
            for kind in ("weight", "bias")[: 1 + linear.bias]:
                self._set(f"{linear.name}.{kind}", tensors.get(f"{linear.name}.{kind}"))
        for norm in (block.norm1, block.norm2):
            self.module.set_submodule(self._local(norm.name), self._norm(norm))

    def forward(self, wide: Sequence[Batch], narrow: Sequence[Batch]) -> tuple[list[Tensor], list[Tensor]]:
        """What leaves the original and this block, entered by ``wide`` and ``narrow``; repaired on the
        way.
        """
        block, masks = self.block, [batch.mask for batch in narrow]
        norm = {"sum": self.original.get_submodule(self._local(block.norm2.name))}
        left = [seen(self.original, norm, batch) for batch in wide]
        sums, outputs = [found["sum"] for found in left], [found["output"] for found in left]
        states, entering = [batch.hidden for batch in narrow], [batch.hidden for batch in wide]
        self._read(block.norm1, block.attention.projections, entering, states, masks)
        o = self._part(block.attention.o.name)
        runs = (partial(self.module, batch.hidden, **batch.arguments) for batch in narrow)
        states = self._write(block.attention.o, sums, states, [inputs_of(o, run) for run in runs], masks)
        self._read(block.norm2, block.mlp.projections, sums, states, masks)
        down, norm2 = self._part(block.mlp.down.name), self._norm(block.norm2)
        mlp = self._part(block.mlp.down.name.rpartition(".")[0])
        rows = [inputs_of(down, partial(mlp, norm2(state))) for state in states]
        return outputs, self._write(block.mlp.down, outputs, states, rows, masks)

    def _read(
        self,
        norm: Norm,
        readers: Sequence[Linear],
        wide: Sequence[Tensor],
        narrow: Sequence[Tensor],
        masks: Masks,
    ) -> None:
        """Fit what reads a norm, whose scales are in the readers: normalized states are compared."""
        if not self.repairs:
            return
        halves, now = (Reading(self.basis), Reading(self.basis)), self._norm(norm)
        for number, (before, after, mask) in enumerate(zip(wide, narrow, masks, strict=True)):
            halves[number % 2].add(normalized(real(before, mask), norm.eps), now(real(after, mask)))
        found, reading = fit_reading(halves, self.damping), halves[0] + halves[1]
        scales = norm.offset + self.tensors.read(f"{norm.name}.weight")
        for linear in readers:
            if found is not None:
                weight = self.tensors.read(f"{linear.name}.weight") * scales
                self._set(f"{linear.name}.weight", weight @ found)
            self._note(linear, found is None, reading.error(self.basis if found is None else found))

    def _write(
        self,
        linear: Linear,
        wanted: Sequence[Tensor],
        states: Sequence[Tensor],
        rows: Sequence[Tensor],
        masks: Masks,
    ) -> list[Tensor]:
        """``states`` with what ``linear`` adds to them, after it was fitted so that they come closest to
        ``wanted`` in the basis.
        """
        weight = self.tensors.get(f"{linear.name}.weight")
        bias = self.tensors.get(f"{linear.name}.bias") if linear.bias else None
        if self.repairs:
            narrow = replace(linear, out_features=self.basis.shape[1])
            halves = Gap(narrow, weight.device), Gap(narrow, weight.device)
            for number, (aim, state, row, mask) in enumerate(zip(wanted, states, rows, masks, strict=True)):
                lacking = aim @ self.basis - state - nn.functional.linear(row, weight, bias)
                halves[number % 2].add(row, lacking, mask)
            kept = torch.arange(linear.in_features, device=weight.device)
            fitted = fit_gap(halves, weight, bias, kept, self.damping)
            self._note(linear, fitted.fit.damping is None, fitted.error)
            weight = self._set(f"{linear.name}.weight", fitted.fit.weight)
            if fitted.fit.bias is not None:
                bias = self._set(f"{linear.name}.bias", fitted.fit.bias)
        added = [nn.functional.linear(row, weight, bias) for row in rows]
        return [state + more for state, more in zip(states, added, strict=True)]

    def _note(self, linear: Linear, failed: bool, error: float) -> None:
        status, detail = UNREPAIRED if failed else ("ok", "")
        label = f"width {len(self.basis)} → {self.basis.shape[1]}"
        self.statuses.append(LayerStatus(linear.name, "width", label, status, error, "output", detail))

    def _norm(self, norm: Norm) -> _Rms:
        return _Rms(self.scale, norm.eps * self.scale**2)

    def _set(self, name: str, value: Tensor) -> Tensor:
        self.tensors.changed[name] = value
        owner, _, leaf = self._local(name).rpartition(".")
        setattr(self.module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))
        return value

    def _part(self, name: str) -> nn.Module:
        return self.module.get_submodule(self._local(name))

    def _local(self, name: str) -> str:
        return name.removeprefix(f"{self.block.prefix}.")
