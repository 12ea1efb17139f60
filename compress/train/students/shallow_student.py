"""A student cut from an encoder–decoder: some layers of each stack, with the weights that they had.

"Shrink and fine-tune" of Shleifer, Rush 2020, "Pre-trained Summarization Distillation", arXiv 2010.13002. The
layers are spaced as evenly as they can be and include the first, which knows the relative positions, and the
last.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ....errors import RecipeError
from ...model.anatomy import Anatomy
from ...model.family import size_keys
from ...model.weights import WeightSource
from ...pipeline.shards import BlockWriter
from ...pipeline.stage import StageResult, assemble

Layers = tuple[int, int]  # of the encoder, and of the decoder


def evenly_spaced(count: int, kept: int) -> list[int]:
    """Which ``kept`` of ``count`` layers stay."""
    return [round(place * (count - 1) / max(1, kept - 1)) for place in range(kept)]


def shallow_anatomy(anatomy: Anatomy, layers: Layers) -> Anatomy:
    """What is left of ``anatomy`` when its stacks have so many layers.

    Raises:
        RecipeError: no encoder–decoder, or one that has fewer.
    """
    if anatomy.kind != "encoder_decoder":
        raise RecipeError(
            f"student_layers are those of an encoder–decoder, and {anatomy.model_type} is an {anatomy.kind}",
            fix="cut the student with the pass layers",
        )
    there = anatomy.layers()
    if any(kept > count for kept, count in zip(layers, there, strict=True)):
        raise RecipeError(
            f"student_layers are {list(layers)}, encoder and decoder have {list(there)}",
            fix="give at most as many",
        )
    decoder = anatomy.blocks[there[0] : there[0] + layers[1]]
    moved = (replace(block, index=layers[0] + place) for place, block in enumerate(decoder))
    return replace(anatomy, blocks=(*anatomy.blocks[: layers[0]], *moved))


def shallow_source(teacher: WeightSource, layers: Layers, directory: Path) -> WeightSource:
    """The student as a checkpoint in ``directory``: a plain model of its family.

    Raises:
        RecipeError: as :func:`shallow_anatomy`.
    """
    shallow_anatomy(teacher.anatomy, layers)
    made = directory / "student"
    if not made.exists():
        first = teacher.anatomy.layers()[0]
        encoder, decoder = teacher.anatomy.blocks[:first], teacher.anatomy.blocks[first:]
        writer = BlockWriter(teacher, {}, directory / "cut" / "outer")
        parts = [writer.outer()]
        for name, blocks, kept in (("encoder", encoder, layers[0]), ("decoder", decoder, layers[1])):
            writer = BlockWriter(teacher, {}, directory / "cut" / name)
            chosen = [blocks[index] for index in evenly_spaced(len(blocks), kept)]
            parts += [writer.part(block, {}, {}, {}, place=place) for place, block in enumerate(chosen)]
        keys = size_keys(teacher.reader.config)
        changes = {keys.layers: layers[0], str(keys.decoder_layers): layers[1]}
        assemble(teacher, StageResult(parts, [], {}, {}, config=changes), directory / "student.partial")
        (directory / "student.partial").rename(made)
    return WeightSource.open(made)
