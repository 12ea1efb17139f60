"""What blocks are made of: linears, norms, ropes, MLPs and experts in their place, by the stored tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal[
    "q", "k", "v", "qkv", "q_a", "q_b", "kv_a", "kv_b", "o", "gate", "up", "gate_up", "down", "in", "x", "out"
]
RANKED = 2  # experts of a group whose scores are added up


@dataclass(frozen=True)
class Linear:
    """One linear map. ``name`` is the full module name: ``model.layers.0.self_attn.q_proj``."""

    name: str
    role: Role
    out_features: int
    in_features: int
    bias: bool


@dataclass(frozen=True)
class Norm:
    """RMSNorm (``kind="rms"``) or LayerNorm (``kind="layer"``), by full module name.

    The scale is ``offset + weight``: 1 in Gemma, whose weights are stored around zero.
    """

    name: str
    kind: Literal["rms", "layer"]
    eps: float
    offset: float = 0.0
    bias: bool = False


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding over the first ``dim`` channels of a head; ``scaling`` may be empty.

    What turns together is channel ``i`` and channel ``i + dim / 2``, or where ``interleaved`` two neighbours.
    """

    theta: float
    dim: int
    scaling: Mapping[str, Any] = field(default_factory=dict, hash=False)
    interleaved: bool = False

    def halves(self, head_dim: int) -> list[int]:
        """The channels of a head in the order in which those that turn together are half of ``dim`` apart."""
        pairs = range(0, self.dim, 2) if self.interleaved else range(self.dim)
        seconds = range(1, self.dim, 2) if self.interleaved else ()
        return [*pairs, *seconds, *range(self.dim, head_dim)]


@dataclass(frozen=True)
class Mlp:
    """``down(act(gate(x)) · up(x))`` when there is a gate, else ``down(act(up(x)))``.

    ``gate_up`` is the one matrix that holds the rows of gate, then of up, or None; where ``interleaved`` they
    alternate. Where it is, those two describe its parts and are no modules of their own.
    ``inner_norm`` is of what ``down`` reads (BitNet). A ``limit`` is the most that ``gate(x)`` may be, and
    ``up(x)`` in both directions, to which ``up_offset`` is added then (gpt-oss).
    """

    gate: Linear | None
    up: Linear
    down: Linear
    activation: str
    gate_up: Linear | None = None
    inner_norm: Norm | None = None
    interleaved: bool = False
    limit: float | None = None
    up_offset: float = 0.0

    def row_orders(self) -> dict[str, list[int]]:
        """By projection: its rows as gate and up in a row, where they are stored in another order."""
        if self.gate_up is None or not self.interleaved:
            return {}
        rows = self.gate_up.out_features
        return {self.gate_up.name: [*range(0, rows, 2), *range(1, rows, 2)]}

    @property
    def projections(self) -> tuple[Linear, ...]:
        """The linears that read the hidden states, which give the gate (if any) and up in a row."""
        if self.gate_up is not None:
            return (self.gate_up,)
        return (self.up,) if self.gate is None else (self.gate, self.up)


@dataclass(frozen=True)
class RouterForm:
    """Experts are weighed by the sigmoid of their scores, and chosen by that and a correction (DeepSeek-V3).

    Attributes:
        correction: the tensor ``[count]`` that is added for the choice alone.
        groups: so many runs of the experts are ranked by the two best in each.
        chosen_groups: how many of them a token's experts come from.
        scale: what the weights are multiplied by at last.
    """

    correction: str
    groups: int
    chosen_groups: int
    scale: float


@dataclass(frozen=True)
class Experts:
    """A router and the MLPs it chooses from, all of the shapes of the block's ``mlp``.

    Attributes:
        router: the linear ``[count, hidden]`` that scores the experts; the softmax of all scores is what the
            chosen experts' outputs are weighed by.
        prefix, parts: an expert's linears are stored as ``{prefix}.{index}.{part}``: gate, up, down, or where
            gate and up are one matrix that and down.
        chosen: how many of the ``count`` a token goes through.
        normalized: the weights of those that are chosen are divided by their sum.
        shared: an MLP that every token goes through beside them, or None.
        shared_last: whether the module calls ``shared`` behind the others, not before.
        shared_gate: the linear ``[1, hidden]`` whose sigmoid the output of ``shared`` is multiplied by.
        stacked: the family stores the same linear of all experts in one tensor.
        router_form: how scores become weights where that is another way.
    """

    router: str
    prefix: str
    parts: tuple[str, ...]
    count: int
    chosen: int
    normalized: bool = True
    shared: Mlp | None = None
    shared_gate: str | None = None
    shared_last: bool = False
    stacked: bool = False
    router_form: RouterForm | None = None

    @property
    def gates(self) -> tuple[str, ...]:
        """The linears that weigh experts, which stay in float."""
        return (self.router,) if self.shared_gate is None else (self.router, self.shared_gate)

    @property
    def groups(self) -> int:
        """Runs of experts, equally long, among which the router chooses first; one where it does not."""
        return 1 if self.router_form is None else self.router_form.groups

    @property
    def fewest(self) -> int:
        """How many experts there have to be: of a group two, by which it is ranked, and in those that are
        chosen as many as a token goes through.
        """
        if self.router_form is None:
            return self.chosen
        of_a_group = -(-self.chosen // self.router_form.chosen_groups)
        return self.groups * max(RANKED, of_a_group)

    @property
    def share(self) -> float:
        """The fraction of the experts that a token goes through."""
        return self.chosen / self.count

    def stored(self, index: int) -> tuple[str, ...]:
        """The weights of the ``parts`` of an expert."""
        return tuple(f"{self.prefix}.{index}.{part}.weight" for part in self.parts)
