"""Encoder–decoders in BART's form: post-norm blocks with LayerNorm and biases, an MLP of two linears, one
table of tokens for both stacks and the head, and positions that are added to it. Whisper has the same blocks,
with their norms in front.
"""

from dataclasses import dataclass
from typing import Literal

from ....errors import CheckpointError
from ..anatomy import Anatomy, DecoderEntry, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Mlp, Norm
from ._config import SizeKeys
from ._tensors import Config, check_blocks, flag, heads_in, integer, linear, norm, shape_of, text

HEAD, HEAD_BIAS = "lm_head", "final_logits_bias"
SELF, CROSS = "self_attn", "encoder_attn"
LOOKS_AT_WEIGHTS = True  # in the encoder, which `generate` runs by itself
SIZES = SizeKeys(
    ffn="encoder_ffn_dim",
    layers="encoder_layers",
    heads=None,
    decoder_layers="decoder_layers",
    decoder_ffn="decoder_ffn_dim",
    decoder_query_heads="decoder_attention_heads",
    hidden="d_model",
    query_heads="encoder_attention_heads",
)
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
_EPS = 1e-5
Order = Literal["pre", "post"]


@dataclass(frozen=True)
class BartLike:
    """What tells one family from another: whether positions are learned, behind two rows that nobody reads,
    or sines, whether a norm follows their sum with the tokens, and how the architecture is called, and how
    where the head, which is the table of tokens, was left out.
    """

    learned_positions: bool
    normed_embedding: bool
    architecture: str
    bare: str


@dataclass(frozen=True)
class Stack:
    """The encoder or the decoder by its full name."""

    name: str
    crosses: bool

    @property
    def side(self) -> str:
        return "decoder" if self.crosses else "encoder"

    def parts(self) -> frozenset[str]:
        """Every module that a block has."""
        attentions = (SELF, CROSS) if self.crosses else (SELF,)
        linears = {f"{attention}.{part}" for attention in attentions for part in _PROJECTIONS}
        norms = {f"{attention}_layer_norm" for attention in attentions}
        return frozenset(linears | norms | {"fc1", "fc2", "final_layer_norm"})


def bart_like(config: Config, shapes: Shapes, family: BartLike) -> Anatomy:
    """The anatomy of an encoder–decoder of ``family``."""
    names = [str(name) for name in config.get("architectures") or []]
    known = {family.architecture, family.bare}
    if config.get("is_encoder_decoder") is False or (names and not known.intersection(names)):
        raise CheckpointError(
            f"config.json describes {', '.join(names) or 'one stack alone'}, not an encoder–decoder with a "
            "vocabulary head",
            fix=f"give the {family.architecture} checkpoint of this model",
        )
    for key in ("tie_word_embeddings", "share_encoder_decoder_embeddings"):
        if not flag(config, key, True):
            raise CheckpointError(
                f"config.json sets {key} to false: several tables of words are not supported"
            )
    base = "model." if "model.shared.weight" in shapes else ""
    embedding = f"{base}shared"
    vocabulary, hidden = shape_of(shapes, f"{embedding}.weight", None, None)
    encoder, decoder = Stack(f"{base}encoder", crosses=False), Stack(f"{base}decoder", crosses=True)
    blocks = stack_blocks(config, shapes, encoder, hidden, 0)
    blocks += stack_blocks(config, shapes, decoder, hidden, len(blocks))
    longest = integer(config, "max_position_embeddings", 1024)
    offset = 2 if family.learned_positions else 0
    positions = [f"{stack.name}.embed_positions" for stack in (encoder, decoder)]
    for table in positions if family.learned_positions else ():
        shape_of(shapes, f"{table}.weight", longest + offset, hidden)
    first, second = (_embedding_norm(shapes, family, stack, hidden) for stack in (encoder, decoder))
    if HEAD_BIAS in shapes:
        shape_of(shapes, HEAD_BIAS, 1, vocabulary)
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="encoder_decoder",
        base=base,
        renamed=() if base else tuple((part, f"model.{part}") for part in ("shared", "encoder", "decoder")),
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=longest,
        blocks=blocks,
        embedding=embedding,
        embedding_copies=(f"{encoder.name}.embed_tokens", f"{decoder.name}.embed_tokens"),
        embedding_scale=hidden**0.5 if flag(config, "scale_embedding", False) else 1.0,
        embedding_norm=first,
        position_embedding=positions[0],
        position_offset=offset,
        decoder_entry=DecoderEntry(positions[1], second),
        computed=() if family.learned_positions else tuple(positions),
        head=HEAD,
        head_bias=HEAD_BIAS if HEAD_BIAS in shapes else None,
        tied=True,
    )


def _embedding_norm(shapes: Shapes, family: BartLike, stack: Stack, hidden: int) -> Norm | None:
    if not family.normed_embedding:
        return None
    return norm(shapes, f"{stack.name}.layernorm_embedding", "layer", _EPS, hidden)


def stack_blocks(
    config: Config, shapes: Shapes, stack: Stack, hidden: int, first: int, *, order: Order = "post"
) -> tuple[BlockAnatomy, ...]:
    """The blocks of ``stack``, whose indices count from ``first``."""
    count, blocks = integer(config, f"{stack.side}_layers"), f"{stack.name}.layers"
    check_blocks(shapes, blocks, count, stack.parts())
    head_dim = hidden // integer(config, f"{stack.side}_attention_heads") or hidden
    activation = text(config, "activation_function", "gelu")
    return tuple(
        _block(shapes, f"{blocks}.{index}", first + index, stack, (hidden, head_dim), activation, order)
        for index in range(count)
    )


def _block(
    shapes: Shapes,
    prefix: str,
    index: int,
    stack: Stack,
    sizes: tuple[int, int],
    activation: str,
    order: Order,
) -> BlockAnatomy:
    hidden = sizes[0]
    up = linear(shapes, f"{prefix}.fc1", "up", inputs=hidden)
    down = linear(shapes, f"{prefix}.fc2", "down", inputs=up.out_features, outputs=hidden)

    def layer(name: str) -> Norm:
        return norm(shapes, f"{prefix}.{name}", "layer", _EPS, hidden)

    return BlockAnatomy(
        index=index,
        prefix=prefix,
        mixer=_attention(shapes, f"{prefix}.{SELF}", *sizes),
        feed_forward=Mlp(None, up, down, activation),
        norm1=layer(f"{SELF}_layer_norm"),
        norm2=layer("final_layer_norm"),
        order=order,
        cross=_attention(shapes, f"{prefix}.{CROSS}", *sizes) if stack.crosses else None,
        cross_norm=layer(f"{CROSS}_layer_norm") if stack.crosses else None,
    )


def _attention(shapes: Shapes, module: str, hidden: int, head_dim: int) -> Attention:
    q = linear(shapes, f"{module}.q_proj", "q", inputs=hidden)
    width, heads = q.out_features, heads_in(q, head_dim)
    k = linear(shapes, f"{module}.k_proj", "k", inputs=hidden, outputs=width)
    v = linear(shapes, f"{module}.v_proj", "v", inputs=hidden, outputs=width)
    o = linear(shapes, f"{module}.out_proj", "o", inputs=width, outputs=hidden)
    return Attention(q, k, v, o, heads, heads, head_dim)
