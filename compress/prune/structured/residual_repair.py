"""What compensates for directions that the residual stream has lost, in closed form, block after block.

Two streams run side by side: the original's states, and those of the narrower model as it is by then. Each
group of linears behind a norm takes in the map from the states it has now to those it had
(:mod:`.residual_fit`); each linear that adds to the residual stream is fitted to its own inputs, so that the
narrow stream comes closest to the original's (:mod:`.residual_fit`). States wait on disk in between: in
memory are the block twice, one batch, and the sums of one fit.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ...model.block_anatomy import BlockAnatomy, Linear, Norm
from ...pipeline.block import LayerStatus
from ...pipeline.block_inputs import Stream
from ...pipeline.forward import Batch, watch_inputs
from ...rotate.rotation import FusedTensors
from .residual_basis import normalized, real
from .residual_cut import scale_of
from .residual_fit import (
    UNREPAIRED,
    NormOutputs,
    ResidualError,
    fit_norm_outputs,
    fit_residual,
    inputs_and_output,
)

# Batches of states, read from disk once more with each call.
States = Callable[[], Iterator[Batch]]


def inputs_of(linear: nn.Module, run: Callable[[], object]) -> Tensor:
    """The inputs of ``linear`` while ``run`` goes on, which ends there."""
    found: list[Tensor] = []
    watch_inputs(run, [(linear, found.append)], stop=True)
    return found[0]


class _Rms(nn.Module):
    def __init__(self, scale: float, eps: float) -> None:
        super().__init__()
        self.scale, self.eps = scale, eps

    def forward(self, states: Tensor) -> Tensor:
        return self.scale * normalized(states, self.eps)


class NarrowBlock:
    """A block cut to ``basis [hidden, kept]``; ``tensors`` are its parameters, which the repair changes.

    ``damping`` None is chosen again for each fit, by halves of the text.
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

    def run(self, wide: Stream, narrow: Stream) -> None:
        """Run the stream ``wide`` through the original, and ``narrow`` through this block, which is repaired
        on the way. The inputs of the block are dropped.
        """
        block, index = self.block, self.block.index
        sums, rows, middle = (wide.empty(name) for name in ("sums", "rows", "middle"))
        self._run_original(wide, sums)
        entering, between = partial(narrow.raw, index), partial(middle.raw, index)
        self._fit_inputs(block.norm1, block.attention.projections, partial(wide.raw, index), entering)
        o, down = self._part(block.attention.o.name), self._part(block.mlp.down.name)
        for number, batch in enumerate(entering()):
            run = partial(self.module, batch.hidden, **batch.arguments)
            rows.write(index, number, inputs_of(o, run))
        wanted, inputs = partial(sums.raw, index), partial(rows.raw, index)
        self._fit_outputs(block.attention.o, wanted, entering, inputs, partial(middle.write, index))
        self._fit_inputs(block.norm2, block.mlp.projections, wanted, between)
        norm2, mlp = self._norm(block.norm2), self._part(block.mlp.down.name.rpartition(".")[0])
        for number, batch in enumerate(between()):
            rows.write(index, number, inputs_of(down, partial(mlp, norm2(batch.hidden))))
        wanted = partial(wide.raw, index + 1)
        self._fit_outputs(block.mlp.down, wanted, between, inputs, partial(narrow.write, index + 1))
        for stream in (sums, rows, middle, wide, narrow):
            stream.drop(index)

    def _run_original(self, wide: Stream, sums: Stream) -> None:
        """Leave what the original's second norm reads in ``sums``, and its outputs in ``wide``."""
        index = self.block.index
        norm = {"sum": self.original.get_submodule(self._local(self.block.norm2.name))}
        for number, batch in enumerate(wide.raw(index)):
            found = inputs_and_output(self.original, norm, batch)
            sums.write(index, number, found["sum"])
            wide.write(index + 1, number, found["output"])

    def _fit_inputs(self, norm: Norm, readers: Sequence[Linear], wide: States, narrow: States) -> None:
        """Fit the ``readers`` of a norm, whose scales are in them: normalized states are compared."""
        if not self.repairs:
            return
        halves, now = (NormOutputs(self.basis), NormOutputs(self.basis)), self._norm(norm)
        for number, (before, after) in enumerate(zip(wide(), narrow(), strict=True)):
            wanted = normalized(real(before.hidden, after.mask), norm.eps)
            halves[number % 2].add(wanted, now(real(after.hidden, after.mask)))
        found, reading = fit_norm_outputs(halves, self.damping), halves[0]
        scales = norm.offset + self.tensors.read(f"{norm.name}.weight")
        for linear in readers:
            if found is not None:
                weight = self.tensors.read(f"{linear.name}.weight") * scales
                self._set(f"{linear.name}.weight", weight @ found)
            self._note(linear, found is None, reading.error(self.basis if found is None else found))

    def _fit_outputs(
        self,
        linear: Linear,
        wanted: States,
        states: States,
        rows: States,
        write: Callable[[int, Tensor], object],
    ) -> None:
        """Fit ``linear`` to its inputs ``rows`` so that ``states``, which it adds to, come closest to
        ``wanted`` in the basis; ``write`` gets the sums by number of the batch.
        """
        weight = self.tensors.get(f"{linear.name}.weight")
        bias = self.tensors.get(f"{linear.name}.bias") if linear.bias else None
        if self.repairs:
            narrow = replace(linear, out_features=self.basis.shape[1])
            halves = ResidualError.halves(narrow, weight.device)
            for number, (aim, state, row) in enumerate(zip(wanted(), states(), rows(), strict=True)):
                added = nn.functional.linear(row.hidden, weight, bias)
                halves[number % 2].add(row.hidden, aim.hidden @ self.basis - state.hidden - added, state.mask)
            kept = torch.arange(linear.in_features, device=weight.device)
            fitted = fit_residual(halves, weight, bias, kept, self.damping)
            self._note(linear, fitted.fit.damping is None, fitted.error)
            weight = self._set(f"{linear.name}.weight", fitted.fit.weight)
            if fitted.fit.bias is not None:
                bias = self._set(f"{linear.name}.bias", fitted.fit.bias)
        for number, (state, row) in enumerate(zip(states(), rows(), strict=True)):
            write(number, state.hidden + nn.functional.linear(row.hidden, weight, bias))

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
