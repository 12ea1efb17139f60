"""One of two encoders whose vectors are compared, of texts or of images (CLIP, SigLIP), as transformers saves
each by itself. A model of both is cut in two first: :mod:`..towers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..image_anatomy import Tower
from ._tensors import Config, check_blocks, integer, linear, norm, number, shape_of, text
from ._vision_encoder import VisionBlock, pre_norm_block

IMAGES, TEXTS = "vision_model.", "text_model."


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
