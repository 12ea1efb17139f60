"""A student of its own: another checkpoint, or a ``config.json`` whose weights are drawn now."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from ....errors import TrainingError
from ...model.anatomy import Anatomy
from ...model.checkpoint.shard_writer import copy_companions
from ...model.family import anatomy_of
from ...model.weights import WeightSource


def student_anatomy(path: Path) -> Anatomy:
    """The anatomy of the student at ``path``, a directory or a ``config.json``; no weights are made.

    Raises:
        TrainingError: there is no such file.
    """
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
    return WeightSource.open(made)


def _drawn(path: Path) -> Any:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

    if not path.is_file():
        raise TrainingError(
            f"there is no student at {path}", fix="name a checkpoint's directory, or a config.json"
        )
    config = AutoConfig.from_pretrained(path)
    names = config.architectures or ()
    causal = any("CausalLM" in name or "LMHead" in name for name in names)
    labels = any(name.endswith("ForSequenceClassification") for name in names)
    loader = AutoModelForSequenceClassification if labels else AutoModel
    loader = AutoModelForCausalLM if causal else loader
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else loader
    return loader.from_config(config, dtype=torch.float32)
