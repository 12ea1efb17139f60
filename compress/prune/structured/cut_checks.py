"""Which parts of blocks cannot be made narrower, as what is left would be read as something else."""

from __future__ import annotations

from collections.abc import Sequence

from ....errors import RecipeError
from ...model.anatomy import Anatomy
from .budget import BlockPart

_MLPS = "cut its MLPs alone: parts: [mlp]"


def check_cut(anatomy: Anatomy, items: Sequence[BlockPart]) -> None:
    """Refuse ``items`` of a model that cannot lose units there."""
    mixtures = [block.experts for block in anatomy.blocks if block.experts is not None]
    channels = any(item.part.name == "ffn" for item in items)
    if channels and mixtures and len(mixtures) < len(anatomy.blocks):
        raise RecipeError(
            "narrow: some blocks have experts and some have none, whose widths config.json says apart",
            fix="prune experts instead: pass experts",
        )
    if channels and any(one.router_form is not None for one in mixtures):
        raise RecipeError(
            f"narrow: how wide the shared expert of a {anatomy.model_type} is follows from the others",
            fix="prune experts instead: pass experts",
        )
    heads = any(item.part.name != "ffn" for item in items)
    if heads and anatomy.has_latents:
        raise RecipeError(
            f"narrow: keys and values of all heads of a {anatomy.model_type} come from one narrow state",
            fix="prune experts instead: pass experts",
        )
    if heads and any(block.attention.slopes for block in anatomy.blocks):
        raise RecipeError(
            f"each head of a {anatomy.model_type} has a slope that follows from its number",
            why="cut heads would give those that are left the slopes of others",
            fix=_MLPS,
        )
    if heads and any(block.attention.normed_over_heads for block in anatomy.blocks):
        raise RecipeError(
            f"{anatomy.model_type} normalizes q and k over all heads at once",
            why="cut heads would change what is left of the others",
            fix=_MLPS,
        )
    normed = next((item.block for item in items if item.block.normed_inside), None)
    if normed is not None:
        raise RecipeError(
            f"{normed.prefix} has norms inside attention and MLP, which take the mean over all channels",
            why="cut channels would change what is left",
            fix="drop whole blocks (pass layers), or prune weights (passes prune, sparsegpt, alps)",
        )
