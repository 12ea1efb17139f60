"""``BlockAnatomy``: where the parts of one transformer block are, and how they follow each other.

Sizes come from the shapes of the stored tensors, so that layers of unequal width need no special case. The
parts are those of :mod:`.block_parts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from ...errors import CheckpointError
from .block_parts.attention_anatomy import Attention, Latent
from .block_parts.linear_anatomy import Experts, Linear, Mlp, Norm, Role, Rope, RouterForm
from .block_parts.mixer_anatomy import Mixer

__all__ = [
    "Attention",
    "BlockAnatomy",
    "Experts",
    "Latent",
    "Linear",
    "Mlp",
    "Norm",
    "Role",
    "Rope",
    "RouterForm",
]


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
        """The mixer of a block that attends."""
        if not isinstance(self.mixer, Attention):
            raise CheckpointError(
                f"{self.prefix} has no attention, and what is asked for needs it in every block",
                why=f"its tokens are mixed by a {type(self.mixer).__name__}",
            )
        return self.mixer

    def causal(self) -> BlockAnatomy:
        """As a block of an encoder whose tokens see those before them alone."""
        if not isinstance(self.mixer, Attention):  # which looks back whatever it is in
            return self
        return replace(self, mixer=replace(self.mixer, causal=True))

    def attentions(self) -> Iterator[Attention]:
        """Where it attends: to the tokens themselves, and in a decoder to the encoder's states."""
        yield from (part for part in (self.mixer, self.cross) if isinstance(part, Attention))

    @property
    def mlp(self) -> Mlp:
        """The MLP of a block that has one."""
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

    def stream_reader(self, linear: Linear) -> str | None:
        """The module whose input is the residual stream that ``linear`` adds to; None where it adds to none,
        or not its outputs as they are, or attention and MLP add to the same.
        """
        late, scaled = self.order in ("post", "late"), self.residual_scale != 1.0
        if scaled or self.order in ("parallel", "behind"):
            return None
        if linear == self.mixer.out and self.attention_norm is None and self.attention_scale is None:
            return self.mixer.inputs()[0][0].name if late else self.norm1.name
        mlp = self.feed_forward if self.experts is None else None
        if mlp is not None and linear == mlp.down and self.mlp_norm is None and self.mlp_scale is None:
            return mlp.projections[0].name if self.order == "post" else self.norm2.name
        return None

    @property
    def stack(self) -> str:
        """Full name of the module that holds the block among others: ``model.layers``."""
        return self.prefix.rpartition(".")[0]

    def moved(self, index: int, place: int) -> BlockAnatomy:
        """The same as the block ``index`` of the model, called by its ``place`` in its stack."""
        prefix = f"{self.stack}.{place}"
        renamed: BlockAnatomy = _renamed(self, self.prefix, prefix)
        return replace(renamed, index=index, prefix=prefix)

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

    def norm_readers(self) -> dict[Norm, list[str]]:
        """By norm of a block that attends and has an MLP, the linears that read the hidden states through it;
        behind the second are the gates of experts too.
        """
        found = {self.norm1: [linear.name for linear in self.attention.projections]}
        if self.cross is not None and self.cross_norm is not None:
            found[self.cross_norm] = [self.cross.q.name]
        inside = found.setdefault(self.norm2, [])
        inside += () if self.experts is None else self.experts.gates
        inside += [linear.name for mlp in self.mlps() for linear in mlp.projections]
        return found

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

    def mlps(self) -> tuple[Mlp, ...]:
        """Its MLP; where it has experts a shared one and all of them, in the order of the forward pass."""
        if self.experts is None:
            return () if self.feed_forward is None else (self.feed_forward,)
        shared = () if self.experts.shared is None else (self.experts.shared,)
        late = self.experts.shared_last
        return (*self.expert_mlps(), *shared) if late else (*shared, *self.expert_mlps())

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
        mixer, cross = self.mixer, self.cross
        between = () if cross is None else ((cross.q,), (cross.k, cross.v), (cross.o,))
        behind = (group for mlp in self.mlps() for group in (mlp.projections, (mlp.down,)))
        return *mixer.inputs(), *between, *behind


def _renamed(value: Any, old: str, new: str) -> Any:
    """A part of an anatomy whose names begin with ``new`` where they began with ``old``."""
    if isinstance(value, str):
        return f"{new}{value.removeprefix(old)}" if value.startswith(f"{old}.") else value
    if isinstance(value, tuple):
        return tuple(_renamed(one, old, new) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
        return replace(value, **{name: _renamed(part, old, new) for name, part in parts.items()})
    return value
