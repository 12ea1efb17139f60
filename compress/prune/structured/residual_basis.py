"""Which directions of the residual stream stay when it becomes narrower: an orthonormal basis ``[hidden,
kept]``, one for the whole model, chosen by what all norms receive on the calibration text.

- ``activation``: the channels of largest mean ``|activation|`` behind the norms, layers counted alike
  (Muralidharan et al. 2024, "Compact Language Models via Pruning and Knowledge Distillation", arXiv
  2407.14679).
- ``reconstruction``: without the channels that the readers of the norms can best compensate for
  (:mod:`...solve.elimination`).
- ``pca``: the principal directions of the normalized states (Ashkboos et al. 2024, "SliceGPT: Compress Large
  Language Models by Deleting Rows and Columns", arXiv 2401.15024), pooled over all norms: SliceGPT turns
  each block by its own matrix and pays for it with a product in every residual connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ....terminal.progress import Progress
from ...model.block_anatomy import BlockAnatomy, Linear, Norm
from ...model.weights import WeightSource
from ...pipeline.block_inputs import BlockRunner, Stream
from ...solve.damped_cholesky import inverted
from ...solve.elimination import eliminate, in_rounds
from .residual_fit import inputs_and_output

Basis = Literal["activation", "reconstruction", "pca"]

_ROUNDS = 64
_DAMPING = 0.01
# A channel whose scale in the final norm is off the usual by more than this fraction keeps to itself.
_UNUSUAL = 0.25


def normalized(states: Tensor, eps: float) -> Tensor:
    """States ``[…, channels]`` at a root mean square of one."""
    return states * torch.rsqrt(states.square().mean(-1, keepdim=True) + eps)


def real(states: Tensor, mask: Tensor | None) -> Tensor:
    """The rows ``[tokens, channels]`` of real tokens."""
    rows = states.flatten(0, -2)
    return rows if mask is None else rows[mask.flatten()]


@dataclass
class NormInputs:
    """Sums over the inputs of all norms, a token at a norm counted once.

    Attributes:
        gram: of normalized states ``[hidden, hidden]``.
        size: of ``|activation|`` behind the norm, its scales included ``[hidden]``.
        wanted: the Gram of the readers' weights times the norm's scales ``[hidden, hidden]``.
    """

    gram: Tensor
    size: Tensor
    wanted: Tensor
    tokens: int = field(default=0)

    @classmethod
    def zeros(cls, hidden: int, device: torch.device) -> NormInputs:
        """Before the first token."""
        square = torch.zeros(hidden, hidden, device=device)
        return cls(square, torch.zeros(hidden, device=device), square.clone())

    def add(self, rows: Tensor, scales: Tensor) -> None:
        """Normalized ``rows [tokens, hidden]`` at a norm with ``scales [hidden]``."""
        self.gram.addmm_(rows.T, rows)
        self.size += (rows * scales).abs().sum(0)
        self.tokens += len(rows)

    def want(self, weight: Tensor) -> None:
        """A reader's ``weight [out, hidden]``, the norm's scales in it."""
        self.wanted.addmm_(weight.T, weight)


def measure_norm_inputs(
    runner: BlockRunner, source: WeightSource, inputs: Stream, progress: Progress, *, readers_too: bool
) -> NormInputs:
    """One run of the calibration text through the whole model, from the ``inputs`` of its first block, which
    stay; ``readers_too``: the Gram of the readers' weights, which takes a product as wide as the hidden
    states with each of them.
    """
    anatomy, device = source.anatomy, inputs.device
    found = NormInputs.zeros(anatomy.hidden_size, device)

    def weigh(norm: Norm, readers: Sequence[str]) -> Tensor:
        scales = norm.offset + source.tensor(f"{norm.name}.weight").to(device)
        for name in readers if readers_too else ():
            found.want(source.tensor(f"{name}.weight").to(device) * scales)
        return scales

    def add(norm: Norm, scales: Tensor, rows: Iterable[Tensor]) -> None:
        for states in rows:
            found.add(normalized(states, norm.eps), scales)

    with progress.task("measuring channels", len(anatomy.blocks)) as task:
        for block in anatomy.blocks:
            index = block.index
            inside = block.norm_readers()
            scales = weigh(block.norm1, inside.pop(block.norm1))
            add(block.norm1, scales, inputs.rows(index))
            weighed = {norm: weigh(norm, readers) for norm, readers in inside.items()}
            watched = {norm.name: runner.skeleton.submodule(norm.name) for norm in inside}
            with runner.loaded(index) as module:
                for number, batch in enumerate(inputs.raw(index)):
                    left = inputs_and_output(module, watched, batch)
                    for norm, scales in weighed.items():
                        add(norm, scales, [real(left[norm.name], batch.mask)])
                    runner.check(index, left["output"], batch.mask)
                    inputs.write(index + 1, number, *inputs.behind(index, index + 1, number, left["output"]))
            if anatomy.encoder_norm is not None and index + 1 == anatomy.layers()[0]:
                readers = [part.name for one in anatomy.blocks for part in _of_encoder(one)]
                scales = weigh(anatomy.encoder_norm, readers)
                states = (real(batch.hidden, batch.mask) for batch in inputs.left(index))
                add(anatomy.encoder_norm, scales, states)
            if index:
                inputs.drop(index)
            task.advance(1)
    assert anatomy.final_norm is not None
    end = len(anatomy.blocks)
    add(anatomy.final_norm, weigh(anatomy.final_norm, ()), inputs.rows(end))
    inputs.drop(end)
    return found


def _of_encoder(block: BlockAnatomy) -> tuple[Linear, ...]:
    """The linears of ``block`` that read what an encoder gave."""
    return () if block.cross is None else (block.cross.k, block.cross.v)


def lost(found: NormInputs, basis: Tensor) -> float:
    """The fraction of what the norms receive that lies outside ``basis``, of its squares."""
    gram = found.gram.to(basis.dtype)
    return 1 - float((basis.T @ gram @ basis).trace() / gram.trace())


def basis_of(found: NormInputs, kind: Basis, count: int, apart: Tensor | None) -> Tensor | None:
    """The basis ``[hidden, count]``, float64; None where a Gram that is needed cannot be inverted.

    Channels in ``apart [hidden]`` (bool) are directions of their own.
    """
    if kind == "pca":
        return _principal(found, count, apart)
    units = _most_active(found, count) if kind == "activation" else _least_replaceable(found, count)
    if units is None:
        return None
    return torch.eye(len(found.size), dtype=torch.float64, device=units.device)[:, units]


def _most_active(found: NormInputs, count: int) -> Tensor:
    return found.size.sort(descending=True, stable=True).indices[:count].sort().values


def _least_replaceable(found: NormInputs, count: int) -> Tensor | None:
    inverse = inverted(found.gram / found.tokens, _DAMPING)
    if inverse is None:
        return None
    values, vectors = torch.linalg.eigh(found.wanted)
    root = (vectors * values.clamp_min(0).sqrt()).T
    return eliminate(root, inverse, 1, 1, in_rounds(len(root) - count, _ROUNDS))[0]


def _principal(found: NormInputs, count: int, apart: Tensor | None) -> Tensor:
    gram = found.gram.to(torch.float64) / found.tokens
    if apart is not None:
        alone = apart.unsqueeze(0) | apart.unsqueeze(1)
        alone.fill_diagonal_(False)
        gram = gram.masked_fill(alone, 0.0)
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors.flip(1)[:, :count]


def unusual(scales: Tensor) -> Tensor:
    """The channels ``[hidden]`` (bool) whose scales are far from the usual."""
    usual = scales.median()
    return (scales - usual).abs() > _UNUSUAL * usual.abs()
