"""What a checkpoint may ask for: settings are data that make no library run code, and files lie inside its
directory, or in the hub cache that the directory is a snapshot of.

Refused wherever they occur, at any depth: ``auto_map`` and ``trust_remote_code`` (Python files of the
model's own), private ``…_internal`` switches, and attention, expert or kernel implementations that name a
hub repository.

The files that belong to a model beside its config and weights: tokenizer, settings, licences.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....errors import CheckpointError, RefusedByPolicy
from ....files.storage import contained, is_regular, read_json

CONFIG = "config.json"
CHECKED = (
    *(CONFIG, "tokenizer_config.json", "generation_config.json"),
    *("processor_config.json", "preprocessor_config.json"),
)
FORBIDDEN = frozenset({"auto_map", "custom_pipelines", "custom_generate", "use_kernels", "kernel_config"})
MAX_DEPTH = 32
# What a licence asks to be kept with the work.
LICENSES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*")
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "[0-9]_*/config.json",
    *LICENSES,
)


def read_config(directory: Path) -> dict[str, Any]:
    """``config.json`` of a model directory, after every settings file there has passed the policy."""
    if not (directory / CONFIG).exists():
        within = sorted(path.parent for path in directory.glob(f"*/{CONFIG}"))
        fix = f"give the directory in it that has one: {within[0]}" if within else ""
        raise CheckpointError(
            f"{directory} has no {CONFIG}", fix=fix or "give the directory that save_pretrained wrote"
        )
    for name in CHECKED[1:]:
        if (directory / name).exists():
            refuse_code(read_json(inside(directory, name)), directory / name)
    config = read_json(inside(directory, CONFIG))
    if not isinstance(config, dict):
        raise CheckpointError(f"{directory / CONFIG} is not a JSON object")
    refuse_code(config, directory / CONFIG)
    return config


def refuse_code(settings: object, path: Path) -> None:
    """Raise :class:`RefusedByPolicy` for the first setting that would run code; the error names ``path``."""
    for key, value in _walk(settings, path):
        if value and _asks_for_code(key.lower(), value):
            raise RefusedByPolicy(
                f"{path} sets {key!a}, which asks a library to run code that comes with the model",
                why="edgepress runs its own model code only, for the families it knows",
                fix=f"if the model is a plain member of a known family, remove {key!a} from a copy of it",
            )


def _asks_for_code(key: str, value: object) -> bool:
    if key in FORBIDDEN or "remote_code" in key:
        return True
    names_repository = isinstance(value, str) and "/" in value
    return key.endswith("_internal") or (key.endswith("implementation") and names_repository)


def _walk(value: object, path: Path, depth: int = 0) -> Iterator[tuple[str, object]]:
    if depth > MAX_DEPTH:
        raise CheckpointError(f"{path} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from _walk(item, path, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, path, depth + 1)


def inside(directory: Path, name: str) -> Path:
    """``directory / name`` for a relative name from an untrusted file.

    A hub cache keeps ``models--org--name/snapshots/REVISION/file`` as links into
    ``models--org--name/blobs``: there the links may lead anywhere below ``models--org--name``.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise RefusedByPolicy(f"file name {name!r} points outside its directory {directory}")
    if directory.parent.name != "snapshots":
        return contained(directory, name)
    root = directory.parent.parent
    return contained(root, (directory.relative_to(root) / name).as_posix())


def companions(directory: Path) -> list[str]:
    """Relative names of those in the ``directory`` of a checkpoint."""
    found = [(path, pattern) for pattern in COMPANIONS for path in directory.glob(pattern)]
    files = {path for path, pattern in found if not ("*" in pattern and path.is_dir()) and is_regular(path)}
    return sorted(path.relative_to(directory).as_posix() for path in files)
