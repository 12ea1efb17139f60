"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) as PEFT saves them: merged into their base on the way in.

A merged weight is ``W + s · B A`` with ``s = alpha / r``, or ``alpha / √r`` where the adapter says so
(rank-stabilised). One tensor of the base is in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...errors import CheckpointError, InputError, OutputExists
from ...files.disk import disk_full_is_typed, require_disk
from ...files.limits import finite_number
from ...files.staging import Staging
from ...files.storage import is_regular, read_json, sha256_file, write_json
from ...files.third_party_errors import third_party_errors_are_typed
from ...terminal.progress import Progress
from .anatomy import Check, stored_name
from .checkpoint.policy import CONFIG, inside
from .checkpoint.shard_writer import copy_companions, join
from .checkpoint.shards import refused_pickle
from .checkpoint.tensor_check import refuse_non_finite
from .weights import WeightSource

SETTINGS, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
# Settings under which a merged weight is something else than W + s · B A.
_OTHER: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
}
_WAY_OUT = (
    "merge it where it was trained: PeftModel.from_pretrained(…).merge_and_unload().save_pretrained(DIR)"
)


def is_adapter(path: Path) -> bool:
    """Whether the directory ``path`` holds an adapter and no model."""
    return (path / SETTINGS).is_file() and not (path / CONFIG).exists()


@dataclass(frozen=True)
class Adapter:
    """The adapter of a directory: its base, the factor ``scale`` of a rank, and its tensors by full name."""

    path: Path
    base: str
    alpha: float
    stabilised: bool
    transposed: bool

    @classmethod
    def open(cls, path: Path) -> Adapter:
        """Read the settings of the directory ``path``."""
        given = read_json(inside(path, SETTINGS))
        if not isinstance(given, dict) or given.get("peft_type") != "LORA":
            raise InputError(f"{path} holds an adapter that is no LoRA", fix=_WAY_OUT)
        for key, plain in _OTHER.items():
            if given.get(key) not in plain:
                raise InputError(f"{path / SETTINGS}: {key} is {given[key]!r}", fix=_WAY_OUT)
        base, alpha = given.get("base_model_name_or_path"), finite_number(given.get("lora_alpha"))
        if not isinstance(base, str) or alpha is None:
            raise InputError(f"{path / SETTINGS} names no base model or no lora_alpha")
        if not (path / WEIGHTS).exists() and (path / PICKLED).exists():
            raise refused_pickle(path / PICKLED)
        if not is_regular(path / WEIGHTS):
            raise CheckpointError(f"{path / WEIGHTS} is missing")
        stabilised, transposed = given.get("use_rslora") is True, given.get("fan_in_fan_out") is True
        return cls(path, base, alpha, stabilised, transposed)

    def sha256(self) -> list[str]:
        """Of settings and weights."""
        return [sha256_file(inside(self.path, name)) for name in (SETTINGS, WEIGHTS)]

    def changes(self, source: WeightSource) -> dict[str, Change]:
        """What happens to stored tensors of the base, by their names."""
        file = inside(self.path, WEIGHTS)
        with third_party_errors_are_typed(lambda why: CheckpointError(f"cannot read {file}", why=why)):
            tensors = load_file(file)
        refuse_non_finite(tensors)
        found: dict[str, Change] = {}
        for name, tensor in tensors.items():
            module, part = _parsed(name)
            target = _stored(module, "bias" if part == "bias" else "weight", source)
            if target is None or part is None:
                raise CheckpointError(f"{file}: {name} fits no tensor of {source.reader.path}", fix=_WAY_OUT)
            found.setdefault(target, Change(self)).take(part, tensor)
        return found


class Change:
    """A product to add to a weight, or the tensor that replaces it."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.parts: dict[str, Tensor] = {}

    def take(self, part: str, tensor: Tensor) -> None:
        """Keep ``tensor``: ``lora_A``, ``lora_B``, or ``whole`` of it."""
        self.parts[part] = tensor

    def applied(self, name: str, stored: Tensor) -> Tensor:
        """The stored tensor ``name`` with the change."""
        if not self.parts.keys() & {"lora_A", "lora_B"}:
            (found,) = self.parts.values()
        else:
            found = stored.float() + self._product(name, stored)
        if found.shape != stored.shape:
            raise self._misfit(name, found.shape, stored)
        return found.to(stored.dtype)

    def _product(self, name: str, stored: Tensor) -> Tensor:
        """What the two matrices add to the stored tensor ``name``; their shapes are looked at before."""
        down, up = self.parts.get("lora_A"), self.parts.get("lora_B")
        if down is None or up is None or down.ndim != 2 or down.shape[:1] != up.shape[1:] or not len(down):
            raise CheckpointError(f"{self.adapter.path}: the two matrices for {name} do not fit")
        shape = (len(up), down.shape[1])
        if shape != tuple(stored.shape[::-1] if self.adapter.transposed else stored.shape):
            raise self._misfit(name, shape, stored)
        root = math.sqrt(len(down)) if self.adapter.stabilised else len(down)
        product = self.adapter.alpha / root * (up.float() @ down.float())
        return product.T if self.adapter.transposed else product

    def _misfit(self, name: str, shape: Sequence[int], stored: Tensor) -> CheckpointError:
        shapes = f"{list(shape)} for {list(stored.shape)}"
        return CheckpointError(f"{self.adapter.path}: the shape of {name} does not fit: {shapes}")


def _parsed(name: str) -> tuple[str, str | None]:
    """The module and the part that a saved tensor belongs to; None for a part that is not known."""
    words = name.removeprefix(_PREFIX).replace(".default", "").split(".")
    if words[-1] == "weight" and words[-2:-1] and words[-2] in ("lora_A", "lora_B"):
        return ".".join(words[:-2]), words[-2]
    known = not any(word.startswith("lora_") for word in words) and words[-1] in ("weight", "bias")
    return ".".join(words[:-1]), ("bias" if words[-1] == "bias" else "whole") if known else None


def _stored(module: str, part: str, source: WeightSource) -> str | None:
    """The name under which the base stores a tensor of transformers' ``module``."""
    anatomy = source.anatomy
    for name in (module, stored_name(anatomy, module), f"{anatomy.base}{module}"):
        if f"{name}.{part}" in source.reader.shapes:
            return f"{name}.{part}"
    return None


def merge(adapter: Adapter, base: Path, target: Path, progress: Progress, check: Check | None = None) -> None:
    """Write the base with the adapter merged into it as the checkpoint ``target``, unless it is there;
    ``check`` refuses it by its anatomy before.
    """
    if (target / CONFIG).is_file():
        return
    source = WeightSource.open(base)
    if source.schemes.keys() - source.reader.coded.by_module.keys():
        raise InputError(f"the base {base} of the adapter {adapter.path} is quantized", fix=_WAY_OUT)
    if check is not None:
        check(source.anatomy)
    changes, names = adapter.changes(source), list(source.reader.shapes)
    require_disk(target, 2 * sum(map(source.reader.read_bytes, names)))
    try:
        with (
            progress.task(f"merging {adapter.path.name}", len(names)) as task,
            Staging(target, wait=True) as stage,
        ):
            stage.result.mkdir()
            parts = []
            with disk_full_is_typed(target), torch.no_grad():
                for number, name in enumerate(names):
                    stored = source.reader.read([name])[name]
                    tensor = changes[name].applied(name, stored) if name in changes else stored
                    refuse_non_finite({name: tensor})
                    parts.append(stage.directory / f"{number}.safetensors")
                    save_file({name: tensor.contiguous()}, parts[-1])
                    task.advance()
                join(parts, stage.result)
                copy_companions(source.reader, stage.result)
                write_json(stage.result / CONFIG, source.reader.config)
            stage.publish()
    except OutputExists:
        if not (target / CONFIG).is_file():  # else another process has written it in the meantime
            raise
