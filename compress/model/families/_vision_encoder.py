"""Encoders of images in ViT's form: squares of pixels through a convolution, pre-norm blocks with LayerNorm,
learned positions, a plain or gated MLP.

ViT, DINOv2, CLIP and SigLIP differ in names, in the class token, in a scale by channel and in what stands
before and behind the blocks, so a family is a table of names.

One of two encoders whose vectors are compared, of texts or of images (CLIP, SigLIP), as transformers saves
each by itself. A model of both is cut in two first: :mod:`..towers`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Mlp, Norm
from ..outer_anatomy import Patches, Tower
from ._encoder_head import HeadNames, with_head
from ._tensors import Config, check_blocks, heads_in, integer, linear, norm, number, shape_of, text

IMAGES, TEXTS = "vision_model.", "text_model."


@dataclass(frozen=True)
class VisionBlock:
    """The modules of a block, relative to it; ``scales`` are tensors."""

    norm1: str
    norm2: str
    attention: str = "attention"
    o: str = "o_proj"
    scales: tuple[str, str] | None = None
    activation: str = "gelu"

    def known(self) -> frozenset[str]:
        """Every linear and norm that a block may have."""
        linears = (f"{self.attention}.{part}_proj" for part in "qkv")
        mlp = (f"mlp.{part}" for part in ("fc1", "fc2", "gate_proj", "up_proj", "down_proj"))
        return frozenset((self.norm1, self.norm2, f"{self.attention}.{self.o}", *linears, *mlp))


@dataclass(frozen=True)
class VisionEncoder:
    """What tells one family from another.

    ``prefix`` is the module that a checkpoint with a head keeps the encoder in; ``projection``,
    ``class_token`` and ``positions`` are in its ``embeddings``. ``first_norm`` is of what enters the blocks,
    ``final_norm`` of the last states.
    """

    prefix: str
    blocks: str
    block: VisionBlock
    head: HeadNames | None = None
    projection: str = "patch_embeddings.projection"
    class_token: str | None = "cls_token"
    positions: str = "position_embeddings"
    first_norm: str | None = None
    final_norm: str | None = "layernorm"
    interpolates: bool = False
    eps: float = 1e-6


def vision_encoder(config: Config, shapes: Shapes, family: VisionEncoder) -> Anatomy:
    """The anatomy of an encoder of images, with its classifier where it has one."""
    found = bare_encoder(config, shapes, family)
    return found if family.head is None else with_head(found, config, shapes, family.head)


def bare_encoder(config: Config, shapes: Shapes, family: VisionEncoder) -> Anatomy:
    """The anatomy of an encoder of images alone."""
    base = family.prefix if any(name.startswith(family.prefix) for name in shapes) else ""
    count, blocks_name = integer(config, "num_hidden_layers"), f"{base}{family.blocks}"
    scales = frozenset(family.block.scales or ())
    check_blocks(shapes, blocks_name, count, family.block.known(), scales)
    patches, hidden = _patches(config, shapes, family, f"{base}embeddings")
    eps = number(config, "layer_norm_eps", family.eps)

    def norm_of(name: str | None) -> Norm | None:
        return None if name is None else norm(shapes, f"{base}{name}", "layer", eps, hidden)

    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="encoder",
        base=base,
        hidden_size=hidden,
        vocab_size=0,
        max_positions=patches.tokens,
        blocks=tuple(
            pre_norm_block(config, shapes, family.block, f"{blocks_name}.{index}", hidden, eps, index)
            for index in range(count)
        ),
        embedding=patches.projection,
        embedding_norm=norm_of(family.first_norm),
        final_norm=norm_of(family.final_norm),
        patches=patches,
    )


def _patches(config: Config, shapes: Shapes, family: VisionEncoder, embedder: str) -> tuple[Patches, int]:
    """How images are read, and the hidden size."""
    side, image = integer(config, "patch_size", 16), _image_size(config)
    projection = f"{embedder}.{family.projection}"
    hidden = shape_of(shapes, f"{projection}.weight", None, 3, side, side)[0]
    token = None if family.class_token is None else f"{embedder}.{family.class_token}"
    if token is not None and shapes.get(token, ())[-1:] != (hidden,):
        raise CheckpointError(f"tensor {token!r} is no vector of {hidden} numbers")
    grid = image[0] // side, image[1] // side
    tokens, positions = grid[0] * grid[1] + (token is not None), f"{embedder}.{family.positions}"
    if shapes.get(positions, ())[-2:] != (tokens, hidden):
        raise CheckpointError(
            f"tensor {positions!r} does not have the {tokens} × {hidden} positions of the image_size "
            f"{image[0]} × {image[1]} in config.json"
        )
    found = Patches(embedder, projection, side, image, token, positions, grid, family.interpolates)
    return found, hidden


def _image_size(config: Config) -> tuple[int, int]:
    size = config.get("image_size", 224)
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    return tuple(integer({"image_size": one}, "image_size", largest=1 << 14) for one in (height, width))  # type: ignore[return-value]


def pre_norm_block(
    config: Config, shapes: Shapes, names: VisionBlock, prefix: str, hidden: int, eps: float, index: int
) -> BlockAnatomy:
    """The block ``prefix``."""
    scales = [f"{prefix}.{name}" for name in names.scales or ()]
    for name in scales:
        shape_of(shapes, name, hidden)
    return BlockAnatomy(
        index=index,
        prefix=prefix,
        mixer=_attention(config, shapes, f"{prefix}.{names.attention}", names.o, hidden),
        feed_forward=_mlp(shapes, f"{prefix}.mlp", hidden, text(config, "hidden_act", names.activation)),
        norm1=norm(shapes, f"{prefix}.{names.norm1}", "layer", eps, hidden),
        norm2=norm(shapes, f"{prefix}.{names.norm2}", "layer", eps, hidden),
        order="pre",
        attention_scale=scales[0] if scales else None,
        mlp_scale=scales[1] if scales else None,
    )


def _attention(config: Config, shapes: Shapes, prefix: str, o: str, hidden: int) -> Attention:
    head_dim = hidden // integer(config, "num_attention_heads") or hidden
    q = linear(shapes, f"{prefix}.q_proj", "q", inputs=hidden)
    width = q.out_features
    k = linear(shapes, f"{prefix}.k_proj", "k", inputs=hidden, outputs=width)
    v = linear(shapes, f"{prefix}.v_proj", "v", inputs=hidden, outputs=width)
    heads = heads_in(q, head_dim)
    return Attention(
        q, k, v, linear(shapes, f"{prefix}.{o}", "o", inputs=width, outputs=hidden), heads, heads, head_dim
    )


def _mlp(shapes: Shapes, prefix: str, hidden: int, activation: str) -> Mlp:
    if f"{prefix}.gate_proj.weight" in shapes:
        gate = linear(shapes, f"{prefix}.gate_proj", "gate", inputs=hidden)
        wide = gate.out_features
        up = linear(shapes, f"{prefix}.up_proj", "up", inputs=hidden, outputs=wide)
        return Mlp(
            gate, up, linear(shapes, f"{prefix}.down_proj", "down", inputs=wide, outputs=hidden), "silu"
        )
    up = linear(shapes, f"{prefix}.fc1", "up", inputs=hidden)
    down = linear(shapes, f"{prefix}.fc2", "down", inputs=up.out_features, outputs=hidden)
    return Mlp(None, up, down, activation)


def text_encoder(
    config: Config, shapes: Shapes, block: VisionBlock, eps: float, *, causal: bool = False
) -> Anatomy:
    """The anatomy of an encoder of texts whose blocks are those of one of images."""
    base = TEXTS if any(name.startswith(TEXTS) for name in shapes) else ""
    count, blocks_name = integer(config, "num_hidden_layers"), f"{base}encoder.layers"
    check_blocks(shapes, blocks_name, count, block.known())
    table, places = (f"{base}embeddings.{name}_embedding" for name in ("token", "position"))
    vocabulary, hidden = shape_of(shapes, f"{table}.weight", None, None)
    eps = number(config, "layer_norm_eps", eps)
    blocks = (
        pre_norm_block(config, shapes, block, f"{blocks_name}.{index}", hidden, eps, index)
        for index in range(count)
    )
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="encoder",
        base=base,
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=shape_of(shapes, f"{places}.weight", None, hidden)[0],
        blocks=tuple(replace(one, mixer=replace(one.attention, causal=causal)) for one in blocks),
        embedding=table,
        position_embedding=places,
        final_norm=norm(shapes, f"{base}final_layer_norm", "layer", eps, hidden),
    )


def with_tower(anatomy: Anatomy, config: Config, shapes: Shapes, towers: Sequence[Tower]) -> Anatomy:
    """``anatomy`` with that of ``towers`` whose class the config names, or the first where it names none."""
    named = (config.get("architectures") or [towers[0].architecture])[0]
    tower = next((one for one in towers if one.architecture == named), None)
    if tower is None:
        raise CheckpointError(
            f"config.json names the architecture {named}, not {towers[0].architecture}",
            why="another head would be left out",
            fix="give the model of both encoders, with :text or :image behind its path",
        )
    if tower.projection is not None:
        linear(shapes, tower.projection, "up", inputs=anatomy.hidden_size)
    # The class with a projection keeps the encoder in a module; the others are it, however they are stored.
    inner = str(named).endswith("WithProjection") or not anatomy.base
    return replace(anatomy, tower=tower, renamed=() if inner else ((anatomy.base, ""),))
