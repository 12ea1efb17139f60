"""``BlockAnatomy``: where the parts of one transformer block are, and how they follow each other.

Sizes come from the shapes of the stored tensors, so that layers of unequal width need no special case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...errors import CheckpointError
from .mixer_anatomy import Mixer

Role = Literal[
    "q", "k", "v", "qkv", "q_a", "q_b", "kv_a", "kv_b", "o", "gate", "up", "gate_up", "down", "in", "x", "out"
]


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
class Latent:
    """How q, k and v come from narrow states (DeepSeek).

    Attributes:
        q_a, q_a_norm: what the projection q reads; None where it reads the hidden states.
        kv_a: its first outputs, through ``kv_a_norm``, are what ``kv_b`` reads; the last ``turned`` are the
            channels of every head's key that the rope turns, behind those that it does not.
        kv_b: for one head after the other the channels of its key that the rope does not turn, then its
            values.
    """

    q_a: Linear | None
    q_a_norm: Norm | None
    kv_a: Linear
    kv_a_norm: Norm
    kv_b: Linear
    turned: int


@dataclass(frozen=True)
class Attention:
    """``heads`` query heads share ``kv_heads`` key/value heads of ``head_dim`` channels: self-attention, or
    attention to the states of an encoder, which ``k`` and ``v`` then read.

    Attributes:
        rope: how positions turn q and k; None where they do not.
        sliding_window: how many tokens a query sees, itself included; in encoders how many to each side of
            it; None for all.
        scale: factor on ``q · k``; None for ``1 / sqrt(head_dim)``.
        qkv: the one matrix that holds the rows of q, k and v, or None. Where it is, those three describe its
            parts and are no modules of their own.
        interleaved: ``qkv`` holds for one key/value head after the other its query heads, then its k and v,
            not all of q, then k, then v.
        q_norm, k_norm: of each head's channels, or where ``normed_over_heads`` of those of all heads at once.
        inner_norm: of what ``o`` reads (BitNet).
        softcap: scores become ``softcap · tanh(score / softcap)`` before the softmax; None leaves them.
        slopes: of each head what a score loses with each token between its query and its key (ALiBi), or
            None.
        causal: of an encoder: a token sees those before it alone, as in a decoder (CLIP's texts).
        sinks: the tensor ``[heads]`` of scores that take part in the softmax of each head and whose value is
            zero (gpt-oss), or None.
        latent: where k and v are parts of one projection of a narrow state, that; a head's values may be
            narrower than its ``head_dim`` then.
    """

    q: Linear
    k: Linear
    v: Linear
    o: Linear
    heads: int
    kv_heads: int
    head_dim: int
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    normed_over_heads: bool = False
    rope: Rope | None = None
    sliding_window: int | None = None
    scale: float | None = None
    softcap: float | None = None
    qkv: Linear | None = None
    interleaved: bool = False
    inner_norm: Norm | None = None
    slopes: tuple[float, ...] | None = None
    causal: bool = False
    sinks: str | None = None
    latent: Latent | None = None

    @property
    def module(self) -> str:
        """Full name of the module that the projections are in: ``model.layers.0.self_attn``."""
        return self.projections[0].name.rpartition(".")[0]

    @property
    def projections(self) -> tuple[Linear, ...]:
        """The linears that read the hidden states, which give q, k and v in a row (see ``row_orders``), or
        what these come from.
        """
        if self.latent is not None:
            return (self.latent.q_a or self.q, self.latent.kv_a)
        return (self.q, self.k, self.v) if self.qkv is None else (self.qkv,)

    @property
    def out(self) -> Linear:
        """The linear that is last."""
        return self.o

    def inputs(self) -> tuple[tuple[Linear, ...], ...]:
        """Linears that read the same activations, in the order of the forward pass."""
        if self.latent is None:
            return self.projections, (self.o,)
        second = () if self.latent.q_a is None else ((self.q,),)
        return self.projections, *second, (self.latent.kv_b,), (self.o,)

    def norms(self) -> tuple[Norm, ...]:
        """Norms inside."""
        latent = () if self.latent is None else (self.latent.q_a_norm, self.latent.kv_a_norm)
        found = (*latent, self.q_norm, self.k_norm, self.inner_norm)
        return tuple(norm for norm in found if norm is not None)

    @property
    def live(self) -> int:
        """Numbers that a token keeps in memory at once."""
        return 3 * self.heads * self.head_dim

    def row_order(self) -> list[int] | None:
        """Rows of an interleaved ``qkv`` as q, k and v in a row want them; None where they are so already."""
        if self.qkv is None or not self.interleaved:
            return None
        size, queries = self.head_dim, self.heads // self.kv_heads
        parts, groups = (range(queries), (queries,), (queries + 1,)), range(self.kv_heads)
        places = (group * (queries + 2) + place for part in parts for group in groups for place in part)
        return [place * size + channel for place in places for channel in range(size)]

    def row_orders(self) -> dict[str, list[int]]:
        """By projection: its rows as attention reads them, where they are stored in another order; those of q
        and k with the channels that turn together half of the rope's width apart, which changes no score.
        """
        if self.latent is not None:
            return _latent_orders(self, self.latent)
        if (order := self.row_order()) is not None:
            return {self.projections[0].name: order}
        if self.qkv is not None or self.rope is None or not self.rope.interleaved:
            return {}
        channels, size = self.rope.halves(self.head_dim), self.head_dim
        return {
            part.name: [
                start + channel for start in range(0, part.out_features, size) for channel in channels
            ]
            for part in (self.q, self.k)
        }


def _latent_orders(part: Attention, latent: Latent) -> dict[str, list[int]]:
    """:meth:`Attention.row_orders`: the turned channels of a head come first, those that turn together half
    of them apart; of ``kv_b`` all keys come before all values.
    """
    width, turned, heads = part.head_dim, latent.turned, range(part.heads)
    plain, rank = width - turned, latent.kv_a.out_features - turned
    halves = list(range(turned)) if part.rope is None else part.rope.halves(turned)
    query = [*(plain + channel for channel in halves), *range(plain)]
    both = plain + part.v.out_features // part.heads
    parts = (range(plain), range(plain, both))
    return {
        part.q.name: [head * width + channel for head in heads for channel in query],
        latent.kv_a.name: [*range(rank), *(rank + channel for channel in halves)],
        latent.kv_b.name: [head * both + channel for own in parts for head in heads for channel in own],
    }


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
    def fixed(self) -> bool:
        """Whether the pass ``experts`` does not know how to leave some out."""
        return len(self.parts) == len(("gate_up", "down")) or self.router_form is not None

    @property
    def share(self) -> float:
        """The fraction of the experts that a token goes through."""
        return self.chosen / self.count

    def stored(self, index: int) -> tuple[str, ...]:
        """The weights of the ``parts`` of an expert."""
        return tuple(f"{self.prefix}.{index}.{part}.weight" for part in self.parts)


@dataclass(frozen=True)
class BlockAnatomy:
    """One transformer block.

    Attributes:
        mixer: what mixes the tokens, attention or what stands in its place; where others speak of attention,
            ``attn`` below too, it is this.
        order: ``pre``: ``x += attn(norm1(x)); x += mlp(norm2(x))``; ``parallel``: ``x += attn(norm1(x)) +
            mlp(norm2(x))``, where both norms may be one; ``post`` (BERT): ``x = norm1(x + attn(x)); x =
            norm2(x + mlp(x))``; ``behind`` (OLMo 2): ``x += norm1(attn(x)); x += norm2(mlp(x))``; ``late``
            (ModernBERT's first): ``x += attn(x); x += mlp(norm2(x))``, where norm1 is norm2; ``alone``
            (Mamba): ``x += attn(norm1(x))``, without an MLP, where norm1 is norm2.
        attention_norm, mlp_norm: applied to what attention and MLP give, before it is added (Gemma 2).
        cross: attention to the encoder's states, between self-attention and MLP; None but in decoders of
            encoder–decoders. ``cross_norm`` is of what its queries read, in ``post`` blocks of the sum
            behind it.
        residual_scale: what attention and MLP give is multiplied by, before it is added (Granite).
        attention_scale, mlp_scale: tensors ``[hidden]`` that what attention and MLP give is multiplied by,
            channel by channel (DINOv2), or None.
        experts: where there are some, ``mlp`` is the first of them.
        repeats: how many times in a row the block is applied (ALBERT).
    """

    index: int
    prefix: str
    mixer: Attention | Mixer
    feed_forward: Mlp | None
    norm1: Norm
    norm2: Norm
    order: Literal["pre", "post", "parallel", "behind", "late", "alone"]
    attention_norm: Norm | None = None
    mlp_norm: Norm | None = None
    experts: Experts | None = None
    cross: Attention | None = None
    cross_norm: Norm | None = None
    residual_scale: float = 1.0
    attention_scale: str | None = None
    mlp_scale: str | None = None
    repeats: int = 1

    @property
    def attends(self) -> bool:
        """Whether attention mixes the tokens."""
        return isinstance(self.mixer, Attention)

    @property
    def attention(self) -> Attention:
        """The mixer of a block that attends.

        Raises:
            CheckpointError: another mixes its tokens.
        """
        if not isinstance(self.mixer, Attention):
            raise CheckpointError(
                f"{self.prefix} has no attention, and what is asked for needs it in every block",
                why=f"its tokens are mixed by a {type(self.mixer).__name__}",
            )
        return self.mixer

    @property
    def mlp(self) -> Mlp:
        """The MLP of a block that has one.

        Raises:
            CheckpointError: it has none.
        """
        if self.feed_forward is None:
            raise CheckpointError(f"{self.prefix} has no MLP, and what is asked for needs it in every block")
        return self.feed_forward

    def activations(self) -> Iterator[str]:
        """The names of the functions in it."""
        for part in (self.mixer, self.feed_forward):
            if name := getattr(part, "activation", None):
                yield name

    @property
    def last(self) -> Linear:
        """The linear that adds to the residual stream last: down, or the mixer's where there is no MLP."""
        return self.mixer.out if self.feed_forward is None else self.feed_forward.down

    @property
    def stack(self) -> str:
        """Full name of the module that holds the block among others: ``model.layers``."""
        return self.prefix.rpartition(".")[0]

    def norms(self) -> Iterator[Norm]:
        """The block's norms in the order of the forward pass, a shared one once."""
        found = (
            self.norm1,
            *self.mixer.norms(),
            self.attention_norm,
            self.cross_norm,
            self.norm2,
            None if self.feed_forward is None else self.feed_forward.inner_norm,
            self.mlp_norm,
        )
        yield from dict.fromkeys(norm for norm in found if norm is not None)

    @property
    def entry_norm(self) -> Norm | None:
        """The norm of what enters, which attention reads; None where attention reads that as it is."""
        return self.norm1 if self.order in ("pre", "parallel", "alone") else None

    @property
    def normed_inside(self) -> bool:
        """Whether a norm stands before o or down."""
        parts = (self.mixer, self.feed_forward)
        return any(getattr(part, "inner_norm", None) is not None for part in parts)

    def linears(self) -> Iterator[Linear]:
        """The block's linears in the order of the forward pass."""
        for group in self.inputs():
            yield from group

    def row_orders(self) -> dict[str, list[int]]:
        """By linear: its rows as graphs read them, where they are stored in another order."""
        found = self.mixer.row_orders() if isinstance(self.mixer, Attention) else {}
        for mlp in self.expert_mlps():
            found |= mlp.row_orders()
        return found

    def expert_linears(self) -> Iterator[Linear]:
        """Those of all experts."""
        for expert in self.expert_mlps():
            yield from (*expert.projections, expert.down)

    def expert_mlps(self) -> Iterator[Mlp]:
        """The experts in their order."""
        experts, mlp = self.experts, self.feed_forward
        if experts is None or mlp is None or mlp.gate is None:
            return
        for index in range(experts.count):
            *first, down = (f"{experts.prefix}.{index}.{part}" for part in experts.parts)
            if mlp.gate_up is None:
                gate, up, whole = *first, None
            else:
                gate, up = (f"{first[0]}.{part.role}" for part in (mlp.gate, mlp.up))
                whole = replace(mlp.gate_up, name=first[0])
            yield replace(
                mlp,
                gate=replace(mlp.gate, name=gate),
                up=replace(mlp.up, name=up),
                down=replace(mlp.down, name=down),
                gate_up=whole,
            )

    def inputs(self) -> tuple[tuple[Linear, ...], ...]:
        """Linears that read the same activations, in the order of the forward pass: q k v · o · gate up ·
        down, and q · k v · o of an attention to the encoder's states in between; gate up · down of a shared
        expert, before or behind those of one expert after the other, which reads the tokens it is chosen for.
        """
        mixer, cross, mlp = self.mixer, self.cross, self.feed_forward
        if self.experts is not None:
            shared = () if self.experts.shared is None else (self.experts.shared,)
            late = self.experts.shared_last
            mlps = (*self.expert_mlps(), *shared) if late else (*shared, *self.expert_mlps())
            groups = (group for mlp in mlps for group in (mlp.projections, (mlp.down,)))
            return *mixer.inputs(), *groups
        between = () if cross is None else ((cross.q,), (cross.k, cross.v), (cross.o,))
        behind = () if mlp is None else (mlp.projections, (mlp.down,))
        return *mixer.inputs(), *between, *behind
