"""Encoder–decoders in T5's form: pre-norm RMSNorm, attention without a scale, an MLP with a gate or without,
and relative positions that the first block of each stack knows and the others share.

One table serves both stacks, and the head where no matrix of its own is stored: what ``config.json`` says of
ties is what transformers wrote there, and it writes the same for all.
"""

from dataclasses import dataclass

from ....errors import CheckpointError
from ..anatomy import Anatomy, LogitForm, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Mlp, Norm
from ._tensors import Config, check_blocks, heads_in, integer, linear, norm, number, shape_of, text

EMBEDDING, HEAD = "shared", "lm_head"
SELF, CROSS, MLP = "SelfAttention", "EncDecAttention", "DenseReluDense"
BIAS = f"layer.0.{SELF}.relative_attention_bias"
# Stored by early conversions, and read by nobody since.
UNREAD = frozenset({f"layer.1.{CROSS}.relative_attention_bias.weight"})
_ARCHITECTURES = ("ForConditionalGeneration", "WithLMHeadModel")
_TRAINED_LENGTH = 512  # relative positions have no end; this is how long the sequences of training were


@dataclass(frozen=True)
class T5Like:
    """What tells one family from another: the MLP where the config names none, and whether logits are
    ``1 / sqrt(hidden)`` of the head's products unless the config ties no words.
    """

    feed_forward: str
    scales: bool = False


@dataclass(frozen=True)
class _Stack:
    """The encoder or the decoder: where its blocks are, how many, and whether they look at the encoder."""

    name: str
    count: int
    crosses: bool

    @property
    def blocks(self) -> str:
        return f"{self.name}.block"

    @property
    def bias(self) -> str:
        return f"{self.blocks}.0.{BIAS}"

    def parts(self, gated: bool) -> frozenset[str]:
        """Every module that a block has."""
        attentions = (f"layer.0.{SELF}", *([f"layer.1.{CROSS}"] if self.crosses else []))
        last = len(attentions)
        linears = {f"{attention}.{part}" for attention in attentions for part in "qkvo"}
        inner = ("wi_0", "wi_1", "wo") if gated else ("wi", "wo")
        linears |= {f"layer.{last}.{MLP}.{part}" for part in inner}
        return frozenset(linears | {f"layer.{index}.layer_norm" for index in range(last + 1)})


def t5_like(config: Config, shapes: Shapes, family: T5Like) -> Anatomy:
    """The anatomy of an encoder–decoder of ``family``."""
    _check_architecture(config)
    vocabulary, hidden = shape_of(shapes, f"{EMBEDDING}.weight", None, None)
    layers = integer(config, "num_layers")
    encoder = _Stack("encoder", layers, crosses=False)
    decoder = _Stack("decoder", integer(config, "num_decoder_layers", layers), crosses=True)
    if f"{HEAD}.weight" in shapes:
        shape_of(shapes, f"{HEAD}.weight", vocabulary, hidden)
    eps = number(config, "layer_norm_epsilon", 1e-6)
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="encoder_decoder",
        base="",
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=integer(config, "n_positions", _TRAINED_LENGTH),
        blocks=(
            *_blocks(config, shapes, family, encoder, hidden, eps, 0),
            *_blocks(config, shapes, family, decoder, hidden, eps, encoder.count),
        ),
        embedding=EMBEDDING,
        embedding_copies=("encoder.embed_tokens", "decoder.embed_tokens"),
        encoder_norm=norm(shapes, "encoder.final_layer_norm", "rms", eps, hidden),
        final_norm=norm(shapes, "decoder.final_layer_norm", "rms", eps, hidden),
        position_biases=(encoder.bias, decoder.bias),
        farthest_bias=integer(config, "relative_attention_max_distance", 128),
        head=HEAD,
        tied=f"{HEAD}.weight" not in shapes,
        logit_form=LogitForm(hidden**-0.5) if family.scales and _scaled(config) else None,
    )


def _check_architecture(config: Config) -> None:
    names = [str(name) for name in config.get("architectures") or []]
    if config.get("is_encoder_decoder") is False or (
        names and not any(name.endswith(_ARCHITECTURES) for name in names)
    ):
        raise CheckpointError(
            f"config.json describes {', '.join(names) or 'one stack alone'}, not an encoder–decoder with a "
            "vocabulary head",
            fix="give the …ForConditionalGeneration checkpoint of this model",
        )


def _scaled(config: Config) -> bool:
    """Since transformers 5 the config says it; before, that words are not tied did."""
    stated = config.get("scale_decoder_outputs")
    return config.get("tie_word_embeddings") is not False if stated is None else bool(stated)


def _blocks(
    config: Config, shapes: Shapes, family: T5Like, stack: _Stack, hidden: int, eps: float, first: int
) -> tuple[BlockAnatomy, ...]:
    gated, activation = _feed_forward(text(config, "feed_forward_proj", family.feed_forward))
    biases = {f"{stack.bias}.weight"}
    others = {name: shape for name, shape in shapes.items() if name not in biases}
    check_blocks(others, stack.blocks, stack.count, stack.parts(gated), UNREAD)
    head_dim = integer(config, "d_kv", 64)
    blocks = tuple(
        _block(shapes, stack, index, first, (hidden, head_dim), gated, activation, eps)
        for index in range(stack.count)
    )
    shape_of(shapes, f"{stack.bias}.weight", None, blocks[0].attention.heads)
    return blocks


def _feed_forward(form: str) -> tuple[bool, str]:
    """Whether there is a gate, and the activation, of ``relu``, ``gated-gelu`` and the like."""
    gate, dash, activation = form.rpartition("-")
    if gate not in ("", "gated") or (dash and not gate) or not activation:
        raise CheckpointError(f"config.json: feed_forward_proj {form!r} is neither NAME nor gated-NAME")
    return bool(gate), "gelu_new" if form == "gated-gelu" else activation


def _block(
    shapes: Shapes,
    stack: _Stack,
    index: int,
    first: int,
    sizes: tuple[int, int],
    gated: bool,
    activation: str,
    eps: float,
) -> BlockAnatomy:
    prefix, hidden = f"{stack.blocks}.{index}", sizes[0]
    last = 2 if stack.crosses else 1

    def rms(place: int) -> Norm:
        return norm(shapes, f"{prefix}.layer.{place}.layer_norm", "rms", eps, hidden)

    return BlockAnatomy(
        index=first + index,
        prefix=prefix,
        mixer=_attention(shapes, f"{prefix}.layer.0.{SELF}", *sizes),
        feed_forward=_mlp(shapes, f"{prefix}.layer.{last}.{MLP}", hidden, gated, activation),
        norm1=rms(0),
        norm2=rms(last),
        order="pre",
        cross=_attention(shapes, f"{prefix}.layer.1.{CROSS}", *sizes) if stack.crosses else None,
        cross_norm=rms(1) if stack.crosses else None,
    )


def _attention(shapes: Shapes, module: str, hidden: int, head_dim: int) -> Attention:
    q = linear(shapes, f"{module}.q", "q", inputs=hidden)
    width, heads = q.out_features, heads_in(q, head_dim)
    k = linear(shapes, f"{module}.k", "k", inputs=hidden, outputs=width)
    v = linear(shapes, f"{module}.v", "v", inputs=hidden, outputs=width)
    o = linear(shapes, f"{module}.o", "o", inputs=width, outputs=hidden)
    return Attention(q, k, v, o, heads, heads, head_dim, scale=1.0)


def _mlp(shapes: Shapes, module: str, hidden: int, gated: bool, activation: str) -> Mlp:
    up = linear(shapes, f"{module}.{'wi_1' if gated else 'wi'}", "up", inputs=hidden)
    width = up.out_features
    gate = linear(shapes, f"{module}.wi_0", "gate", inputs=hidden, outputs=width) if gated else None
    return Mlp(gate, up, linear(shapes, f"{module}.wo", "down", inputs=width, outputs=hidden), activation)
