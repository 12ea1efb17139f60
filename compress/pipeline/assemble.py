"""Joining the parts that a stage left into a checkpoint directory; its manifest is not written here."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...storage import write_json
from ..model.checkpoint.block_sizes import BLOCK_SIZES
from ..model.checkpoint.compressed import quantization_config
from ..model.checkpoint.kv_scales import OWN_KEY, ecosystem_form, own_form
from ..model.checkpoint.shard_writer import copy_companions, join
from ..model.module_names import module_name
from ..model.weights import WeightSource
from .stage import StageResult


def assemble(source: WeightSource, result: StageResult, directory: Path) -> None:
    """Write weights, ``config.json`` and the companions of ``source`` into ``directory``, made anew."""
    source = result.form or source
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    join(result.parts, directory)
    config = {name: value for name, value in source.reader.config.items() if name != "quantization_config"}
    config.pop(OWN_KEY, None)
    config |= result.config | own_form(result.kv_scheme)
    if config.get(BLOCK_SIZES) is None:
        config.pop(BLOCK_SIZES, None)
    cache = None if result.kv_scheme is None else ecosystem_form(result.kv_scheme)
    if result.schemes or cache is not None:
        config["quantization_config"] = quantization_config(
            result.schemes, result.forms, _others(source, result), cache
        )
    write_json(directory / "config.json", config)
    copy_companions(source.reader, directory)
    for name, content in result.files.items():
        if content is None:
            (directory / name).unlink()
        else:
            write_json(directory / name, content)


def _others(source: WeightSource, result: StageResult) -> list[str]:
    """The linear modules of the model that stay in float."""
    anatomy = source.anatomy
    names = [linear.name for linear in anatomy.linears() if linear.name not in result.schemes]
    if anatomy.classifier is not None:
        names += [anatomy.classifier.dense, anatomy.classifier.out]
    elif anatomy.kind == "encoder":
        names.append("pooler.dense")  # transformers adds one to a model that was saved without it
    if anatomy.head is not None:
        names.append(module_name(anatomy, anatomy.head))
    return names
