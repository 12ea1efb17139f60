"""The students of ``distill``: what passes left of the model, layers of an encoder–decoder, or one of its
own.

Layers of each stack are spaced as evenly as they can be and include the first, which knows the relative
positions, and the last: "Shrink and fine-tune" of Shleifer, Rush 2020, "Pre-trained Summarization
Distillation", arXiv 2010.13002. A student of its own is another checkpoint, or a ``config.json`` whose
weights are drawn now. It learns from the next-token distribution of a teacher with the same tokenizer:
families pad the embedding of each size differently, so that logits are not equally long, and a vocabulary may
go on where the other ends. Anything else would compare the chance of one word with that of another.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ....errors import CheckpointError, RecipeError, TrainingError, UnknownName
from ....files.storage import read_json
from ....files.third_party_errors import third_party_errors_are_typed
from ...model.anatomy import Anatomy
from ...model.block_anatomy import Linear
from ...model.checkpoint.block_sizes import layer_counts
from ...model.checkpoint.policy import refuse_code
from ...model.checkpoint.shard_writer import copy_companions
from ...model.config_check import check_settings
from ...model.family import anatomy_of
from ...model.weights import WeightSource
from ...pipeline.block_shards import BlockWriter
from ...pipeline.stage import Stage, StageResult, assemble
from .student import Student


def float_student(
    stage: Stage,
    linears: Sequence[Linear],
    rank: int | None = None,
    seed: int = 0,
    *,
    embedding: bool = False,
    streams: bool = False,
) -> Student:
    """The model of ``stage`` with the weights of ``linears``, and all norms and biases, free; with ``rank``
    the weights change by a product of that rank. With ``embedding`` that learns too, and the head. It
    ``streams`` as a :class:`Student` does.
    """
    quantized = [linear.name for linear in linears if linear.name in stage.source.schemes]
    if quantized:
        raise TrainingError(
            f"{len(quantized)} of the layers that should learn are quantized, the first is {quantized[0]}",
            why="codes are no float weights, and do not move here",
            fix="do this before quantizing, ignore them, or use tune (scales) or qat (codes)",
        )
    student = Student(stage.source, stage.device, streams=streams)
    student.learn_weights(linears, stage.masks, rank, seed)
    student.learn(("norms", "biases", *(("embedding",) if embedding else ())))
    if not student.learned:
        raise TrainingError(
            "the model has no norms or biases to learn", fix="let its linears learn: train: all"
        )
    return student


Layers = tuple[int, int]  # of the encoder, and of the decoder


def evenly_spaced(count: int, kept: int) -> list[int]:
    """Which ``kept`` of ``count`` layers stay."""
    return [round(place * (count - 1) / max(1, kept - 1)) for place in range(kept)]


def shallow_anatomy(anatomy: Anatomy, layers: Layers) -> Anatomy:
    """What is left of ``anatomy`` when its stacks have so many layers."""
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
    """The student as a checkpoint in ``directory``: a plain model of its family."""
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
        changes = layer_counts(teacher.reader.config, *layers)
        assemble(teacher, StageResult(parts, [], {}, {}, config=changes), directory / "student.partial")
        (directory / "student.partial").rename(made)
    return WeightSource.open(made)


def student_anatomy(path: Path) -> Anatomy:
    """The anatomy of the student at ``path``, a directory or a ``config.json``; no weights are made."""
    if path.is_dir():
        return WeightSource.open(path).anatomy
    from accelerate import init_empty_weights

    with init_empty_weights():
        model = _drawn(path)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return anatomy_of(model.config.to_dict(), shapes)


def student_source(path: Path, teacher: WeightSource, directory: Path, seed: int) -> WeightSource:
    """The student at ``path``: a checkpoint as it is; a ``config.json`` becomes one in ``directory``, with
    weights drawn with ``seed`` and the teacher's tokenizer.
    """
    if path.is_dir():
        return WeightSource.open(path)
    made = directory / "student"
    if not made.exists():
        partial = directory / "student.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _drawn(path)
        model.save_pretrained(partial)
        copy_companions(teacher.reader, partial)
        partial.rename(made)
    try:
        return WeightSource.open(made)
    except CheckpointError as error:
        raise TrainingError(
            f"the student that {path} describes cannot learn from this teacher",
            why=error.what,
            fix=f"it has the teacher's tokenizer, and needs its vocab_size {teacher.anatomy.vocab_size}",
        ) from None


_STUDENT = "name a checkpoint's directory, or the config.json of a model of a known family"


def _drawn(path: Path) -> Any:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

    if not path.is_file():
        raise TrainingError(f"there is no student at {path}", fix=_STUDENT)
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise TrainingError(f"{path} is no config.json", why="it is not a JSON object", fix=_STUDENT)
    refuse_code(settings, path)
    try:
        check_settings(settings)
    except (CheckpointError, UnknownName) as error:
        raise TrainingError(f"{path} describes no student: {error.what}", fix=error.fix) from None
    with third_party_errors_are_typed(
        lambda why: TrainingError(f"transformers makes no model of {path}", why=why, fix=_STUDENT)
    ):
        config = AutoConfig.from_pretrained(path)
        names = config.architectures or ()
        causal = any("CausalLM" in name or "LMHead" in name for name in names)
        labels = any(name.endswith("ForSequenceClassification") for name in names)
        loader = AutoModelForSequenceClassification if labels else AutoModel
        loader = AutoModelForCausalLM if causal else loader
        loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else loader
        return loader.from_config(config, dtype=torch.float32)


_SPLITTING = ("normalizer", "pre_tokenizer")


def shared_ids(student: Path, teacher: Path) -> int:
    """How many ids, from 0 on, stand for the same tokens in both models, whose tokenizers split text
    alike.
    """
    mine, theirs = (read_json(path / "tokenizer.json") for path in (student, teacher))
    for part in _SPLITTING:
        if mine.get(part) != theirs.get(part):
            raise _other(f"their {part} is not the same")
    if mine["model"].get("merges") != theirs["model"].get("merges"):
        raise _other("their merges are not the same")
    tokens = [_by_id(tokenizer) for tokenizer in (mine, theirs)]
    shared = min(map(len, tokens))
    for index in range(shared):
        one, other = (names.get(index) for names in tokens)
        if one != other:
            raise _other(f"id {index} is {one!r} in one and {other!r} in the other")
    return shared


def _other(why: str) -> TrainingError:
    return TrainingError(
        "student and teacher have different vocabularies",
        why=why,
        fix="give the student the teacher's tokenizer.json, or compare states instead of logits",
    )


def _by_id(tokenizer: dict[str, Any]) -> dict[int, str]:
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pairs in the order of ids
        found = {index: str(entry[0]) for index, entry in enumerate(vocabulary)}
    else:
        found = {int(index): str(token) for token, index in vocabulary.items()}
    return found | {int(entry["id"]): str(entry["content"]) for entry in tokenizer.get("added_tokens", [])}
