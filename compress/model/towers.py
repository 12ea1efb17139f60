"""A model of two encoders, of texts and of images (CLIP, SigLIP), cut in two: each becomes a checkpoint as
transformers saves it by itself, in the cache.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ...errors import CheckpointError, OutputExists
from ...files.disk import disk_full_is_typed, require_disk
from ...files.staging import Staging
from ...files.storage import cache_directory, sha256_json, write_json
from ...files.third_party_errors import third_party_errors_are_typed
from ...terminal.progress import Progress
from .anatomy import Check
from .checkpoint.logical_tensors import coded_linears, logical_shapes
from .checkpoint.policy import CONFIG
from .checkpoint.reader import CheckpointReader
from .checkpoint.shard_writer import copy_companions, join
from .family import PAIRS, anatomy_of
from .image_processor import FILES

# Sections of config.json and modules by tower; the class of each, and the projection beside the module.
_SECTIONS = {"text": "text_config", "image": "vision_config"}
_MODULES = {"text": "text_model.", "image": "vision_model."}
_CLASSES = {
    ("clip", "text"): ("CLIPTextModelWithProjection", "text_projection."),
    ("clip", "image"): ("CLIPVisionModelWithProjection", "visual_projection."),
    ("siglip", "text"): ("SiglipTextModel", None),
    ("siglip", "image"): ("SiglipVisionModel", None),
}


# Files of the other one.
_NOT_OF = {
    "text": FILES,
    "image": (
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "merges.txt", "spiece.model", "generation_config.json"),
    ),
}


def cut_out(path: Path, tower: str, progress: Progress, check: Check | None = None) -> Path:
    """The directory of the ``tower`` (``text`` or ``image``) of the model at ``path``, made where need be,
    unless ``check`` refuses its anatomy.
    """
    reader = CheckpointReader.open(path)
    model_type = str(reader.config.get("model_type"))
    if model_type not in PAIRS:
        raise CheckpointError(
            f"{path} is a {model_type} model, and not one of two encoders",
            why=f"only {' and '.join(PAIRS)} models are",
            fix=f"give its path without :{tower}",
        )
    target = cache_directory() / "towers" / sha256_json([reader.fingerprint(), tower])
    if not (target / CONFIG).is_file():
        _write(reader, model_type, tower, target, progress, check)
    return target


def _write(
    reader: CheckpointReader,
    model_type: str,
    tower: str,
    target: Path,
    progress: Progress,
    check: Check | None,
) -> None:
    architecture, projection = _CLASSES[model_type, tower]
    prefixes = tuple(prefix for prefix in (_MODULES[tower], projection) if prefix is not None)
    names = [name for name in reader.shapes if name.startswith(prefixes)]
    if not names:
        raise CheckpointError(f"{reader.path} has no tensors of its {tower} encoder ({prefixes[0]}…)")
    config = _config(reader, tower) | {"architectures": [architecture]}
    if check is not None:
        shapes = logical_shapes(reader, coded_linears(reader), (), caches=False)
        check(anatomy_of(config, {name: shapes[name] for name in shapes if name.startswith(prefixes)}))
    require_disk(target, 2 * sum(map(reader.nbytes, names)))
    try:
        with (
            progress.task(f"cutting out the {tower} encoder", len(names)) as task,
            Staging(target, wait=True) as stage,
            disk_full_is_typed(target),
        ):
            stage.result.mkdir()
            parts = []
            for number, name in enumerate(names):
                parts.append(stage.directory / f"{number}.safetensors")
                save_file(reader.read([name]), parts[-1])
                task.advance()
            join(parts, stage.result)
            copy_companions(reader, stage.result)
            for path in stage.result.iterdir():
                if path.name in _NOT_OF[tower]:
                    path.unlink()
            write_json(stage.result / CONFIG, config)
            stage.publish()
    except OutputExists:
        if not (target / CONFIG).is_file():  # else another process has written it in the meantime
            raise


def _config(reader: CheckpointReader, tower: str) -> dict[str, Any]:
    """The section of the ``tower``, whole: published ones leave out what transformers has by default."""
    from transformers import AutoConfig

    with third_party_errors_are_typed(
        lambda why: CheckpointError(f"transformers makes no model of {reader.path / CONFIG}", why=why)
    ):
        both = AutoConfig.from_pretrained(reader.path)
        found: dict[str, Any] = getattr(both, _SECTIONS[tower]).to_dict()
    wide = reader.config.get("projection_dim", getattr(both, "projection_dim", None))
    found |= {} if wide is None else {"projection_dim": wide}
    # What a whole model says: a projection of another width is refused when the weights are looked at.
    kept = ("dtype", "torch_dtype", "quantization_config")
    return found | {key: reader.config[key] for key in kept if key in reader.config}
