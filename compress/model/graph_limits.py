"""Which models a graph can be built of: asked before one is compressed, and again before it is exported."""

from ...errors import CheckpointError, ShapeError, UnknownName
from .anatomy import Anatomy
from .block_anatomy import Attention, BlockAnatomy, Rope

TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")
ACTIVATIONS = ("silu", "swish", "gelu", "quick_gelu", "relu", "relu2", "tanh", *TANH_GELU)
# Variants whose frequencies do not change with the length, as long as that stays within the model's
# positions: longrope's are those of its pretraining.
ROPES = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")
HEAD_STEP = 8
_CHANNEL_STEP = 16  # GroupQueryAttention rotates pairs of channels in eights


def require_graph(anatomy: Anatomy) -> None:
    """Refuse what the graph of a decoder or an encoder cannot express."""
    for block in anatomy.blocks:
        for name in block.activations():
            if name not in ACTIVATIONS:
                raise UnknownName("activation function", name, ACTIVATIONS)
    if anatomy.kind == "encoder_decoder":
        return  # both orders that there are have nodes
    if anatomy.kind == "decoder":
        check_decoder(anatomy)
    else:
        check_encoder(anatomy)


def check_decoder(anatomy: Anatomy) -> None:
    """:func:`require_graph` for decoders."""
    if not anatomy.blocks or anatomy.final_norm is None:
        raise CheckpointError(
            f"a {anatomy.model_type} decoder without blocks or final norm cannot be exported"
        )
    for block in anatomy.blocks:
        _check_decoder_block(block)
    for rope in anatomy.ropes():
        check_rope(rope)


def _check_decoder_block(block: BlockAnatomy) -> None:
    if block.order == "post":
        raise CheckpointError(f"{block.prefix} normalises after its sums: such decoders are not supported")
    if not isinstance(block.mixer, Attention):
        return
    attention = block.mixer
    if attention.head_dim % HEAD_STEP or attention.heads % attention.kv_heads:
        raise ShapeError(
            f"{block.prefix}: {attention.heads} heads of {attention.head_dim} channels over "
            f"{attention.kv_heads} key/value heads",
            why=f"ONNX Runtime's attention needs multiples of {HEAD_STEP} channels and whole groups",
        )


def check_rope(rope: Rope) -> None:
    """Refuse what one pair of tables cannot hold."""
    _check_kind(rope)
    if rope.dim % _CHANNEL_STEP:
        raise ShapeError(
            f"rope over {rope.dim} channels of a head",
            why=f"ONNX Runtime's GroupQueryAttention rotates multiples of {_CHANNEL_STEP} channels",
        )


def _check_kind(rope: Rope) -> None:
    kind = rope_kind(rope)
    if kind not in ROPES:
        raise CheckpointError(
            f"rope type {kind!r} cannot be exported", why=f"one table of angles serves {', '.join(ROPES)}"
        )


def rope_kind(rope: Rope) -> str:
    """Its name in transformers."""
    return str(rope.scaling.get("rope_type", rope.scaling.get("type", "default")))


def check_encoder(anatomy: Anatomy) -> None:
    """:func:`require_graph` for encoders."""
    if anatomy.other_head is not None:
        raise CheckpointError(
            f"this encoder has {anatomy.other_head}, which no graph is built of: it would be left out",
            fix="take the encoder alone: save it with transformers' AutoModel, which leaves the head out",
        )
    turned = all(block.attention.rope is not None for block in anatomy.blocks)
    if anatomy.looks_back and not turned:
        raise CheckpointError(
            f"a {anatomy.model_type} that embeds sentences has blocks without a rope",
            why="of decoders, graphs that embed texts are built of those whose every block has one",
        )
    placed = anatomy.position_embedding or anatomy.relative or anatomy.patches
    if placed is None and not turned:
        raise CheckpointError(f"a {anatomy.model_type} encoder without positions cannot be exported")
    for rope in anatomy.ropes():
        _check_kind(rope)
    for block in anatomy.blocks:
        if block.order in ("parallel", "behind"):
            raise CheckpointError(
                f"{block.prefix} is in the order {block.order!r}: such encoders are not supported"
            )
        if unknown := _unknown_in_encoders(block):
            raise CheckpointError(
                f"{block.prefix} has {', '.join(unknown)}: graphs that embed texts know none",
                why="they are those of encoders, also where a decoder embeds",
            )


def _unknown_in_encoders(block: BlockAnatomy) -> list[str]:
    """What a block has that only the graphs of decoders know."""
    part = block.attention
    found = {
        "experts": block.experts,
        "soft-capped scores": part.softcap,
        "sinks": part.sinks,
        "scores that fall with the distance": part.slopes,
        "keys and values of a narrow state": part.latent,
        "a norm in front of the attention's last linear": part.inner_norm,
    }
    return [name for name, there in found.items() if there is not None]
