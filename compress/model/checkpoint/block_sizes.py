"""``config.json`` of a model whose blocks have been pruned to smaller sizes.

Where all blocks have equal sizes, and the family's config has a name for each, those entries change and the
model loads in plain transformers. Otherwise they stay as they were, the sizes of every block are listed under
``edgepress_blocks``, and the model loads through edgepress: transformers refuses it, since tensors and config
disagree.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ....errors import CheckpointError, RecipeError
from ..anatomy import Anatomy
from ..block_anatomy import Attention, BlockAnatomy
from ..families._config import SizeKeys
from ..family import size_keys

BLOCK_SIZES = "edgepress_blocks"
OF_EXPERTS = "moe_intermediate_size"  # where the width of an expert has a key of its own

# By what the own section calls them.
Sizes = dict[str, int]


def sizes_of(block: BlockAnatomy) -> Sizes:
    """The sizes of a block that pruning may change."""
    sizes = {} if block.feed_forward is None else {"ffn": block.feed_forward.up.out_features}
    if isinstance(block.mixer, Attention):
        sizes |= {"heads": block.mixer.heads, "kv_heads": block.mixer.kv_heads}
    return sizes if block.cross is None else {**sizes, "cross_heads": block.cross.heads}


def config_changes(config: Mapping[str, Any], after: Anatomy) -> dict[str, Any]:
    """Entries of ``config`` that change when the model becomes ``after``; the section is None where
    it has to go.
    """
    keys, sizes, attention = (
        size_keys(config),
        [sizes_of(block) for block in after.blocks],
        after.blocks[0].attention,
    )
    if after.kind == "encoder_decoder":
        return _changes_of_stacks(keys, after)
    expressible = keys.heads is not None or attention.heads * attention.head_dim == after.hidden_size
    expressible &= keys.ffn is not None or all(size["ffn"] == 4 * after.hidden_size for size in sizes)
    widths = _widths(config, keys, after)
    alike = all(size | {"ffn": 0} == sizes[0] | {"ffn": 0} for size in sizes)
    if widths is None or not alike or not expressible:
        return {BLOCK_SIZES: sizes}
    changes: dict[str, Any] = {BLOCK_SIZES: None} | widths
    if keys.heads is not None:
        heads = config.get(keys.heads[0])
        if (heads, config.get(keys.heads[1], heads)) != (attention.heads, attention.kv_heads):
            values = attention.heads, attention.kv_heads, attention.head_dim
            changes |= dict(zip(keys.heads, values, strict=True))
    return changes


def _widths(config: Mapping[str, Any], keys: SizeKeys, after: Anatomy) -> dict[str, int] | None:
    """The width of MLPs by the key of ``config`` that says it, experts' apart where it has one for them; None
    where they differ.
    """
    found: dict[str, int] = {}
    for block in after.blocks:
        key = OF_EXPERTS if block.experts is not None and OF_EXPERTS in config else keys.ffn
        width = block.mlp.up.out_features
        if key is not None and found.setdefault(key, width) != width:
            return None
    return found


def _changes_of_stacks(keys: SizeKeys, after: Anatomy) -> dict[str, Any]:
    """:func:`config_changes` of an encoder–decoder, whose stacks may have keys of their own."""
    encoder, decoder = (after.blocks[stack.start : stack.stop] for stack in after.ranges())
    alike = all(sizes_of(block) == sizes_of(stack[0]) for stack in (encoder, decoder) for block in stack)
    widths = [stack[0].mlp.up.out_features for stack in (encoder, decoder)]
    heads = {(part.heads, part.head_dim) for block in after.blocks for part in block.attentions()}
    whole = all(count * head_dim == after.hidden_size for count, head_dim in heads)
    said = whole if keys.heads is None else len(heads) == 1
    if not alike or not said or (keys.decoder_ffn is None and widths[0] != widths[1]):
        return {BLOCK_SIZES: [sizes_of(block) for block in after.blocks]}
    changes: dict[str, Any] = {BLOCK_SIZES: None}
    if keys.heads is not None:
        count, head_dim = heads.pop()
        changes |= dict(zip(keys.heads, (count, count, head_dim), strict=True))
    if keys.ffn is not None:
        changes |= {keys.ffn: widths[0], keys.decoder_ffn or keys.ffn: widths[1]}
    return changes


def with_hidden_size(config: Mapping[str, Any], before: Anatomy, kept: int) -> dict[str, Any]:
    """Entries of ``config`` that change when the hidden size of ``before`` becomes ``kept``.

    The size of a head is written down, since it no longer follows from the hidden size; a family that would
    refuse that becomes its twin, whose name alone is another.
    """
    keys, attention = size_keys(config), before.blocks[0].attention
    changes: dict[str, Any] = {keys.hidden: kept}
    if attention.latent is not None:  # whose sizes all have keys of their own
        return changes
    assert keys.heads is not None
    changes[keys.heads[2]] = attention.head_dim
    heads = config.get(keys.heads[0])
    if keys.twin is None or not isinstance(heads, int) or kept % heads == 0:
        return changes
    model_type, architecture = keys.twin
    changes |= {"model_type": model_type, "architectures": [architecture], "sliding_window": None}
    changes[keys.heads[1]] = config.get(keys.heads[1], heads)
    return changes | {"max_position_embeddings": before.max_positions}


def hidden_fits(anatomy: Anatomy, kept: int) -> bool:
    """Whether a config can say that the hidden size of ``anatomy`` is ``kept``: a twin has no biases."""
    divides = all(kept % block.attention.heads == 0 for block in anatomy.blocks)
    own = size_keys({"model_type": anatomy.model_type}).twin is None
    return divides or own or not any(linear.bias for linear in anatomy.linears())


def layer_counts(config: Mapping[str, Any], layers: int, decoder_layers: int = 0) -> dict[str, Any]:
    """Entries of ``config`` that say how many layers there are, in the decoder of an encoder–decoder too.
    A second name of the encoder's in the file (BART) would win over the first.
    """
    keys = size_keys(config)
    changes: dict[str, Any] = {keys.layers: layers}
    if keys.decoder_layers is not None:
        changes[keys.decoder_layers] = decoder_layers
        changes |= {SizeKeys.layers: layers} if SizeKeys.layers in config else {}
    return changes


def without_blocks(config: Mapping[str, Any], before: Anatomy, kept: Sequence[int]) -> dict[str, Any]:
    """Entries of ``config`` that change when only the blocks ``kept`` of ``before`` stay."""
    if config.get("scale_attn_by_inverse_layer_idx"):
        raise RecipeError(
            "config.json sets scale_attn_by_inverse_layer_idx: each block computes with its own number",
            fix="prune its heads and channels (pass narrow) instead of layers",
        )
    first = before.layers()[0] if before.kind == "encoder_decoder" else len(before.blocks)
    in_front = sum(index < first for index in kept)
    changes = layer_counts(config, in_front, len(kept) - in_front)
    stages = config.get("stage_names")
    if isinstance(stages, list):  # of a backbone each block is one (DINOv2), and the last is what it gives
        stages = stages[: len(kept) + 1]
        changes |= {"stage_names": stages, "out_features": stages[-1:], "out_indices": [len(stages) - 1]}
    if isinstance(config.get(BLOCK_SIZES), list):
        changes[BLOCK_SIZES] = [config[BLOCK_SIZES][index] for index in kept]
    if isinstance(config.get("full_attn_idxs"), list):  # LFM2
        attending = [place for place, index in enumerate(kept) if before.blocks[index].attends]
        changes["full_attn_idxs"] = attending
    parts = [block.mixer if isinstance(block.mixer, Attention) else None for block in before.blocks]
    windows = [None if part is None else part.sliding_window for part in parts]
    if isinstance(config.get("layer_types"), list):
        changes["layer_types"] = [config["layer_types"][index] for index in kept]
    elif any(window != windows[0] for window in windows):
        kinds = ["full_attention" if window is None else "sliding_attention" for window in windows]
        changes["layer_types"] = [kinds[index] for index in kept]
    turned = [int(part is None or part.rope is not None) for part in parts]
    if before.ropes() and not all(turned):
        changes["no_rope_layers"] = [turned[index] for index in kept]
    return changes


def check_section(config: Mapping[str, Any], anatomy: Anatomy) -> None:
    """Refuse an own section that its tensors contradict."""
    section = config.get(BLOCK_SIZES)
    if section is None:
        return
    found = [sizes_of(block) for block in anatomy.blocks]
    if not isinstance(section, list) or len(section) != len(found):
        raise CheckpointError(f"config.json: {BLOCK_SIZES} must list the sizes of {len(found)} blocks")
    for block, stated, size in zip(anatomy.blocks, section, found, strict=True):
        if stated != size:
            raise CheckpointError(
                f"config.json: {BLOCK_SIZES} says {stated!r} of {block.prefix}, which has {size}"
            )
