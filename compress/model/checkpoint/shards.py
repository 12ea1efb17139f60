"""The tensors of a checkpoint directory by name, in one safetensors file or many, checked before anything
is loaded.

With shards, ``model.safetensors.index.json`` says which file holds which tensor. It is believed only where
every shard agrees: nothing missing, nothing extra, nothing twice, and no file outside the directory.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from ....errors import CheckpointError, RefusedByPolicy
from ....storage import read_json
from .header import TensorEntry, read_header
from .location import inside

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})


@dataclass(frozen=True)
class Location:
    """Where the bytes of one tensor are."""

    path: Path
    entry: TensorEntry


def locate(directory: Path) -> dict[str, Location]:
    """Every tensor of the checkpoint in ``directory``. One whole file wins over an index, as in transformers.

    Raises:
        CheckpointError: no weights, a damaged file, or an index and shards that disagree; names file and
        tensor. RefusedByPolicy: only pickle files, or an index that points outside the directory.
    """
    if (directory / SINGLE).exists():
        path = inside(directory, SINGLE)
        return {name: Location(path, entry) for name, entry in read_header(path).items()}
    if (directory / INDEX).exists():
        return _sharded(directory)
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise refused_pickle(directory / pickles[0])
    found = ", ".join(sorted(path.name for path in directory.iterdir())[:8]) or "nothing"
    raise CheckpointError(
        f"{directory} has no weights: neither {SINGLE} nor {INDEX}",
        why=f"it holds {found}",
        fix="give a directory that save_pretrained or a whole download wrote, or the path of a .gguf file",
    )


def refused_pickle(path: Path) -> RefusedByPolicy:
    """The refusal of a pickle file, with the way out."""
    return RefusedByPolicy(
        f"{path} is a pickle file, and reading a pickle can run any code that its author put there",
        fix="convert it where nothing can be lost (a container without network or secrets): "
        "AutoModelForCausalLM.from_pretrained(DIR, weights_only=True).save_pretrained(NEW_DIR); "
        "then give edgepress NEW_DIR, which has model.safetensors",
    )


def _sharded(directory: Path) -> dict[str, Location]:
    index = inside(directory, INDEX)
    weight_map = _weight_map(index)
    by_shard: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        by_shard.setdefault(shard, set()).add(tensor)
    located: dict[str, Location] = {}
    for shard, expected in sorted(by_shard.items()):
        path = _shard(directory, shard, expected)
        entries = read_header(path)
        _check_shard(path, entries.keys(), expected, weight_map)
        located.update({name: Location(path, entry) for name, entry in entries.items()})
    return located


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map from tensor names to shards")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.isprintable() or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} maps tensor {tensor!a} to {str(shard)[:80]!a}, not a .safetensors file"
            )
    return weight_map


def _shard(directory: Path, name: str, expected: set[str]) -> Path:
    path = inside(directory, name)
    if not path.is_file():
        raise CheckpointError(
            f"shard {name} is missing from {directory}",
            why=f"{INDEX} says it holds {len(expected)} tensors, {min(expected)!a} among them",
            fix="finish the download: every shard that the index names is needed",
        )
    return path


def _check_shard(path: Path, held: Set[str], expected: set[str], weight_map: dict[str, str]) -> None:
    if missing := expected - held:
        raise CheckpointError(
            f"tensor {min(missing)!r} is not in shard {path}, where the index puts it ({len(missing)} such)",
            fix="index and shards come from different saves: fetch all of them again",
        )
    if extra := held - expected:
        name = min(extra)
        home = f"the index puts it into {weight_map[name]}" if name in weight_map else "the index omits it"
        raise CheckpointError(
            f"shard {path} holds the unexpected tensor {name!r}: {home} ({len(extra)} such)",
            fix="index and shards come from different saves: fetch all of them again",
        )
