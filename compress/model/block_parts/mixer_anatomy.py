"""What mixes the tokens of a block in the place of attention: short convolutions and state spaces.

Either reads the tokens before through a state of fixed size, and has linears and small parameters of its own,
which stay in float.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .linear_anatomy import Linear, Norm


@dataclass(frozen=True)
class CausalConvolution:
    """Each of ``channels`` by itself: the sum of its last ``width`` tokens, each times a weight of
    ``module``, whose tensor is ``[channels, 1, width]``.
    """

    module: str
    channels: int
    width: int
    bias: bool


@dataclass(frozen=True)
class ShortConvolution:
    """``out_proj(c · convolution(b · x))``, where ``in_proj`` gives b, c and x in a row (LFM2)."""

    in_proj: Linear
    out_proj: Linear
    convolution: CausalConvolution

    @property
    def projections(self) -> tuple[Linear, ...]:
        """The linears that read the hidden states."""
        return (self.in_proj,)

    @property
    def out(self) -> Linear:
        """The linear that is last."""
        return self.out_proj

    def inputs(self) -> tuple[tuple[Linear, ...], ...]:
        """Linears that read the same activations, in the order of the forward pass."""
        return (self.in_proj,), (self.out_proj,)

    def norms(self) -> tuple[Norm, ...]:
        """Norms inside."""
        return ()

    def own_linears(self) -> tuple[str, ...]:
        """Linear modules of transformers that are never called."""
        return ()

    def own_tensors(self) -> tuple[str, ...]:
        """Names of tensors that are of no linear and no norm, stored or not."""
        return _tensors(self.convolution)

    @property
    def live(self) -> int:
        """Numbers that a token keeps in memory at once."""
        return 5 * self.out_proj.in_features


@dataclass(frozen=True)
class StateSpace:
    """Mamba: ``in_proj`` gives x and z in a row. x goes through the convolution and ``activation``, and from
    it ``x_proj`` makes a step of ``rank`` numbers, B and C. Each channel has a state of ``size`` numbers:
    ``h = exp(step · A) · h + step · B · x``, ``y = C · h + D · x``, and ``out_proj`` reads ``y · silu(z)``.

    Attributes:
        module: what its tensors are in: ``A_log [channels, size]``, of which A is ``-exp``, and ``D``.
        step: the linear from the ``rank`` numbers to the channels' steps, before a softplus. transformers
            multiplies with its matrix and never calls it, so that it stays in float.
        step_norm, b_norm, c_norm: of what ``x_proj`` gives (Jamba).
    """

    in_proj: Linear
    x_proj: Linear
    out_proj: Linear
    convolution: CausalConvolution
    module: str
    step: str
    rank: int
    size: int
    activation: str
    step_norm: Norm | None = None
    b_norm: Norm | None = None
    c_norm: Norm | None = None

    @property
    def projections(self) -> tuple[Linear, ...]:
        """The linears that read the hidden states."""
        return (self.in_proj,)

    @property
    def out(self) -> Linear:
        """The linear that is last."""
        return self.out_proj

    def inputs(self) -> tuple[tuple[Linear, ...], ...]:
        """Linears that read the same activations, in the order of the forward pass."""
        return (self.in_proj,), (self.x_proj,), (self.out_proj,)

    def norms(self) -> tuple[Norm, ...]:
        """Norms inside."""
        return tuple(norm for norm in (self.step_norm, self.b_norm, self.c_norm) if norm is not None)

    def own_linears(self) -> tuple[str, ...]:
        """Linear modules of transformers that are never called."""
        return (self.step,)

    def own_tensors(self) -> tuple[str, ...]:
        """Names of tensors that are of no linear and no norm, stored or not."""
        own = (f"{self.module}.A_log", f"{self.module}.D", f"{self.step}.weight", f"{self.step}.bias")
        return (*_tensors(self.convolution), *own)

    @property
    def live(self) -> int:
        """Numbers that a token keeps in memory at once: transformers has the decay, what is added, and the
        product of B and the step of each number of the state.
        """
        return (4 * self.size + 6) * self.out_proj.in_features


@dataclass(frozen=True)
class HeadedStateSpace:
    """Mamba 2: ``in_proj`` gives z, then x, B and C, then a step of each head, in a row. x, B and C go
    through the convolution and ``activation``; heads of a group share B and C. A channel's state has ``size``
    numbers: ``h = exp(step · A) · h + step · B · x``, ``y = C · h + D · x``. ``out_proj`` reads
    ``norm(y · silu(z))``, the mean of whose squares is taken over each group by itself.

    Attributes:
        module: what its tensors are in: ``A_log``, ``D`` and ``dt_bias``, each ``[heads]``.
        least, most: what the step is clamped to behind its softplus.
        chunk: tokens that transformers multiplies at once.
    """

    in_proj: Linear
    out_proj: Linear
    convolution: CausalConvolution
    module: str
    heads: int
    head_dim: int
    groups: int
    size: int
    activation: str
    norm: Norm
    least: float
    most: float
    chunk: int

    @property
    def projections(self) -> tuple[Linear, ...]:
        """The linears that read the hidden states."""
        return (self.in_proj,)

    @property
    def out(self) -> Linear:
        """The linear that is last."""
        return self.out_proj

    def inputs(self) -> tuple[tuple[Linear, ...], ...]:
        """Linears that read the same activations, in the order of the forward pass."""
        return (self.in_proj,), (self.out_proj,)

    def norms(self) -> tuple[Norm, ...]:
        """Norms inside."""
        return (self.norm,)

    def own_linears(self) -> tuple[str, ...]:
        """Linear modules of transformers that are never called."""
        return ()

    def own_tensors(self) -> tuple[str, ...]:
        """Names of tensors that are of no linear and no norm, stored or not."""
        own = tuple(f"{self.module}.{name}" for name in ("A_log", "D", "dt_bias"))
        return (*_tensors(self.convolution), *own)

    @property
    def live(self) -> int:
        """Numbers that a token keeps in memory at once: transformers repeats B and C for each head, and has
        products of all pairs of tokens of a chunk several times.
        """
        return self.heads * (6 * self.size + 4 * self.chunk + 6 * self.head_dim)


Mixer = ShortConvolution | StateSpace | HeadedStateSpace


def _tensors(convolution: CausalConvolution) -> tuple[str, ...]:
    return f"{convolution.module}.weight", f"{convolution.module}.bias"
