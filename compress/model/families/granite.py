"""Granite without experts: Llama's form with factors on embeddings, scores, residual additions and logits.

Granite Team, Granite 3.0 Language Models, 2024.
"""

from dataclasses import replace

from ..anatomy import Anatomy, LogitForm, Shapes
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config, number

FAMILY = LlamaLike(max_positions=2048)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return scaled(config, llama_like(config, shapes, FAMILY))


def scaled(config: Config, found: Anatomy) -> Anatomy:
    """``found`` with the factors that the config has."""
    scale, added = number(config, "attention_multiplier", 1.0), number(config, "residual_multiplier", 1.0)
    blocks = tuple(
        replace(block, mixer=replace(block.attention, scale=scale), residual_scale=added)
        for block in found.blocks
    )
    return replace(
        found,
        blocks=blocks,
        embedding_scale=number(config, "embedding_multiplier", 1.0),
        logit_form=LogitForm(scale=1 / number(config, "logits_scaling", 1.0)),
    )
