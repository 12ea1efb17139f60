"""``Attention``: where its projections are, and what becomes of their rows and scores."""

from dataclasses import dataclass

from .linear_anatomy import Linear, Norm, Rope


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
        sliding_window: how many tokens a query sees, itself included; in encoders that look to both sides
            how many to each side of it; None for all.
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
        causal: of an encoder: a token sees those before it alone, as in a decoder (CLIP's texts, and decoders
            whose states become vectors).
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
    def value_dim(self) -> int:
        """Channels of a head's values: its ``head_dim``, but where a latent says otherwise."""
        return self.v.out_features // self.kv_heads

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
