"""Least squares around the residual stream, to which a block adds the outputs of o and of down.

Two fits. A linear that adds to the stream: earlier blocks have changed, so that the stream has an error
against the original's; the linear is fitted to its own inputs so that what it adds to comes closest to the
original (:class:`ResidualError`). That is the correction of Li et al. 2025, "GPTAQ", arXiv 2504.02692, aimed
at the hidden states instead of at the linear's own output. And what is behind a norm of a narrower stream: a
map from what the norm outputs now to what it did, which its linears take in
(:class:`NormOutputs`), or the scales of the final norm alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ...model.block_anatomy import BlockAnatomy, Linear, Norm
from ...pipeline.forward import Batch, run_block, watch_inputs
from ...solve.damped_cholesky import cholesky, damp, fit_halves
from ...solve.elimination import RefitLinear, least_squares

# Status and detail of a layer whose least squares could not be solved.
UNREPAIRED = ("fallback-unrepaired", "the Gram is not positive definite")


@dataclass(frozen=True)
class Fitted:
    """``fit``: the new linear; ``error``: what is left of the residual error, squared and relative to it."""

    fit: RefitLinear
    error: float


def adds_plainly(block: BlockAnatomy, linear: Linear) -> bool:
    """Whether the output of ``linear``, o or down, is added once to the residual stream, as it is."""
    norm = block.mlp_norm if linear == block.last else block.attention_norm
    return block.order != "behind" and norm is None and block.repeats == 1


def norm_after(block: BlockAnatomy, linear: Linear) -> Norm | None:
    """The norm that reads the residual stream after ``linear``, o or down, has added to it; None where the
    stream leaves the block.
    """
    if linear == block.last:
        return block.norm2 if block.order == "post" else None
    if block.order in ("parallel", "behind"):
        return None
    if block.cross is not None and linear == block.cross.o:
        return block.cross_norm if block.order == "post" else block.norm2
    return block.norm1 if block.order == "post" else block.cross_norm or block.norm2


def inputs_and_output(module: nn.Module, watched: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
    """The inputs of the ``watched`` parts of a block while ``batch`` goes through it, and its ``output``."""
    found: dict[str, Tensor] = {}

    def run() -> None:
        found["output"] = run_block(module, batch)

    parts = [(part, partial(found.__setitem__, name)) for name, part in watched.items()]
    watch_inputs(run, parts, stop=False)
    return found


def refit_bytes(linear: Linear) -> int:
    """The most memory that a fit of ``linear`` by :func:`fit_residual` takes, in bytes.

    Two pairs of sums, and what a fit solves with: a square, one more for a bias, and three weights.
    """
    inputs, outputs = linear.in_features, linear.out_features
    return 4 * ((3 + linear.bias) * inputs**2 + 5 * inputs * outputs)


class ResidualError:
    """Sums over tokens of the residual error behind a linear, and of the linear's inputs."""

    def __init__(self, linear: Linear, device: torch.device) -> None:
        inputs, outputs = linear.in_features, linear.out_features
        self._gram = torch.zeros(inputs, inputs, device=device)
        self._cross = torch.zeros(outputs, inputs, device=device)
        self._mean, self._shift = torch.zeros(inputs, device=device), torch.zeros(outputs, device=device)
        self._power, self.tokens = 0.0, 0

    @classmethod
    def halves(cls, linear: Linear, device: torch.device) -> tuple[ResidualError, ResidualError]:
        """Two, each for half of the text."""
        return cls(linear, device), cls(linear, device)

    def add(self, rows: Tensor, missing: Tensor, mask: Tensor | None) -> None:
        """``rows [batch, tokens, in]`` of inputs, ``missing [batch, tokens, out]``; ``mask`` of real
        tokens.
        """
        rows, missing = rows.flatten(0, -2), missing.flatten(0, -2)
        if mask is not None:
            rows, missing = rows[mask.flatten()], missing[mask.flatten()]
        self._gram.addmm_(rows.T, rows)
        self._cross.addmm_(missing.T, rows)
        self._mean += rows.sum(0)
        self._shift += missing.sum(0)
        self._power += float(missing.square().sum())
        self.tokens += len(rows)

    def include(self, other: ResidualError) -> None:
        """Have the sums over the tokens of both."""
        self._gram += other._gram
        self._cross += other._cross
        self._mean += other._mean
        self._shift += other._shift
        self._power, self.tokens = self._power + other._power, self.tokens + other.tokens

    @property
    def empty(self) -> bool:
        """Whether no token counted."""
        return not self.tokens

    @property
    def gram(self) -> Tensor:
        """``E[x xᵀ]`` of the inputs ``[in, in]``."""
        return self._gram / self.tokens

    def fit(
        self, weight: Tensor, bias: Tensor | None, kept: Tensor, damping: float, strength: float = 1.0
    ) -> Fitted:
        """The linear on its columns ``kept`` that removes ``strength`` of the error, and what is left
        of that.
        """
        cross, mean = strength * self._cross / self.tokens, self._mean / self.tokens
        shift = strength * self._shift / self.tokens
        centre, offset = (None, None) if bias is None else (mean, shift)
        found = least_squares(weight, bias, lambda: self.gram, centre, kept, damping, cross, offset)
        return Fitted(found, self.error(found, weight, bias, kept, strength))

    def error(
        self, found: RefitLinear, weight: Tensor, bias: Tensor | None, kept: Tensor, strength: float = 1.0
    ) -> float:
        """What is left of ``strength`` of the residual error, squared and relative to it, when the linear
        becomes ``found``.
        """
        cross, shift = strength * self._cross / self.tokens, strength * self._shift / self.tokens
        change = -weight
        change[:, kept] += found.weight
        moved = torch.zeros_like(shift) if found.bias is None or bias is None else found.bias - bias
        # E‖missing − ΔW x − Δb‖², multiplied out.
        power = strength**2 * self._power / self.tokens
        left = power - 2 * float((change * cross).sum()) - 2 * float(moved @ shift) + float(moved @ moved)
        left += 2 * float(moved @ (change @ self._mean)) / self.tokens
        left += float(((change @ self.gram) * change).sum())
        return max(left, 0.0) / power if power > 0 else 0.0


def fit_residual(
    halves: tuple[ResidualError, ResidualError],
    weight: Tensor,
    bias: Tensor | None,
    kept: Tensor,
    damping: float | None,
) -> Fitted:
    """The linear fitted to both halves of the text, as :func:`fit_halves` says."""

    def fit(half: ResidualError, tried: float) -> Fitted:
        return half.fit(weight, bias, kept, tried)

    def error(half: ResidualError, found: Fitted) -> float:
        return half.error(found.fit, weight, bias, kept)

    return fit_halves(halves, damping, fit, error)


class NormOutputs:
    """Sums over tokens of a norm's outputs: before, ``t [hidden]``, and now, ``n [kept]``.

    ``start [hidden, kept]`` is the map that the damping holds the fit to.
    """

    def __init__(self, start: Tensor) -> None:
        self.start = start.to(torch.float32)
        kept = start.shape[1]
        self.gram = torch.zeros(kept, kept, device=start.device)
        self.cross = torch.zeros_like(self.start)
        self.power = 0.0

    def add(self, before: Tensor, now: Tensor) -> None:
        """Rows ``before [tokens, hidden]`` of the original and ``now [tokens, kept]``."""
        self.gram.addmm_(now.T, now)
        self.cross.addmm_(before.T, now)
        self.power += float(before.square().sum())

    def include(self, other: NormOutputs) -> None:
        """Have the sums over the tokens of both."""
        self.gram += other.gram
        self.cross += other.cross
        self.power += other.power

    def fit(self, damping: float) -> Tensor | None:
        """The map ``[hidden, kept]`` of least ``E‖t − R n‖²``; None where the Gram does not factor."""
        factor = cholesky(damp(self.gram.clone(), damping))
        if factor is None:
            return None
        return self.start + torch.cholesky_solve((self.cross - self.start @ self.gram).T, factor).T

    @property
    def empty(self) -> bool:
        """Whether there is nothing to fit."""
        return not self.power

    def error(self, found: Tensor | None) -> float:
        """What the map ``found`` leaves of ``t``, squared and relative; without bound where there is none."""
        if found is None:
            return float("inf")
        left = self.power - 2 * float((self.cross * found).sum()) + float(((found @ self.gram) * found).sum())
        return max(left, 0.0) / self.power if self.power > 0 else 0.0


def fit_norm_outputs(halves: tuple[NormOutputs, NormOutputs], damping: float | None) -> Tensor | None:
    """The map fitted to both halves of the text, as :func:`fit_halves` says, of which the first becomes both;
    None where a Gram does not factor.
    """
    return fit_halves(halves, damping, NormOutputs.fit, NormOutputs.error)


def fitted_scales(
    reading: NormOutputs, start: Tensor, table_gram: Tensor, basis: Tensor, damping: float
) -> Tensor | None:
    """The final norm's scales ``w [kept]`` of least squared error of the logits ``E B (w ∘ n)``, where
    ``E [vocab, hidden]`` is the embedding and ``B [hidden, kept]`` the basis; ``start`` are those that the
    damping holds them to. None where the equations do not factor.

    ``table_gram`` is ``EᵀE`` with the mean row of ``E`` taken off, since a shift of all logits changes
    nothing. The normal equations are ``(Bᵀ EᵀE B ∘ E[n nᵀ]) w = diag(Bᵀ EᵀE E[t nᵀ])``.
    """
    reads = basis.T @ table_gram.to(basis.dtype)
    square = (reads @ basis) * reading.gram
    target = (reads * reading.cross.T).sum(1)
    scales = start.to(basis.dtype)
    factor = cholesky(damp(square.clone(), damping))
    if factor is None:
        return None
    change = torch.cholesky_solve((target - square @ scales).unsqueeze(1), factor).squeeze(1)
    return (scales + change).to(torch.float32)
