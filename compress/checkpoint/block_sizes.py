"""What ``config.json`` says of a model whose blocks have shrunk.

Where all blocks have equal sizes, and the family's config has a name for each, those entries change and the
model loads in plain transformers. Otherwise they stay as they were, the sizes of every block are listed under
``edgepress_blocks``, and the model loads through edgepress: transformers refuses it, since tensors and config
disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import CheckpointError
from ..anatomy import Anatomy, BlockAnatomy
from ..family import size_keys

BLOCK_SIZES = "edgepress_blocks"

# By what the own section calls them.
Sizes = dict[str, int]


def sizes_of(block: BlockAnatomy) -> Sizes:
    """The sizes of a block that pruning may change."""
    attention = block.attention
    return {"ffn": block.mlp.up.out_features, "heads": attention.heads, "kv_heads": attention.kv_heads}


def config_changes(config: Mapping[str, Any], after: Anatomy) -> dict[str, Any]:
    """Entries of ``config`` that change when the model becomes ``after``; the section is None where
    it has to go.
    """
    keys, sizes, attention = (
        size_keys(config),
        [sizes_of(block) for block in after.blocks],
        after.blocks[0].attention,
    )
    expressible = keys.heads is not None or attention.heads * attention.head_dim == after.hidden_size
    if any(size != sizes[0] for size in sizes) or not expressible:
        return {BLOCK_SIZES: sizes}
    changes: dict[str, Any] = {BLOCK_SIZES: None, keys.ffn: sizes[0]["ffn"]}
    if keys.heads is not None:
        heads = config.get(keys.heads[0])
        if (heads, config.get(keys.heads[1], heads)) != (attention.heads, attention.kv_heads):
            values = attention.heads, attention.kv_heads, attention.head_dim
            changes |= dict(zip(keys.heads, values, strict=True))
    return changes


def check_section(config: Mapping[str, Any], anatomy: Anatomy) -> None:
    """Refuse an own section that its tensors contradict.

    Raises:
        CheckpointError: names the block.
    """
    section = config.get(BLOCK_SIZES)
    if section is None:
        return
    found = [sizes_of(block) for block in anatomy.blocks]
    if not isinstance(section, list) or len(section) != len(found):
        raise CheckpointError(f"config.json: {BLOCK_SIZES} must list the sizes of {len(found)} blocks")
    for block, said, size in zip(anatomy.blocks, section, found, strict=True):
        if said != size:
            raise CheckpointError(
                f"config.json: {BLOCK_SIZES} says {said!r} of {block.prefix}, which has {size}"
            )
