"""How the images of a model are prepared, as the file of its processor says: ``preprocessor_config.json``, or
the newer ``processor_config.json``. Older files leave out what their processor's class decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ...files.storage import is_regular, read_json
from ...runtime.bundle.preprocessing import FILTERS, Preprocessing
from ...runtime.bundle.typed_json import Unusable, read
from .anatomy import Anatomy

FILES = ("preprocessor_config.json", "processor_config.json")
_HALF = [0.5, 0.5, 0.5]
_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


@dataclass(frozen=True)
class ProcessorDefaults:
    """What a processor's class decides where its file is silent.

    Attributes:
        shorter: a single size is that of the shorter side, and not of both.
    """

    resample: int
    mean: list[float]
    std: list[float]
    shorter: bool
    crops: bool


_CLIP = ProcessorDefaults(3, _CLIP_MEAN, _CLIP_STD, shorter=True, crops=True)
_VIT = ProcessorDefaults(2, _HALF, _HALF, shorter=False, crops=False)
_SIGLIP = ProcessorDefaults(3, _HALF, _HALF, shorter=False, crops=False)
# By how the processor's class begins.
_CLASSES = {"ViT": _VIT, "Siglip": _SIGLIP, "CLIP": _CLIP, "Bit": _CLIP}


def preprocessing_of(directory: Path) -> Preprocessing | None:
    """How the images of the model in ``directory`` are prepared; None where no file says it."""
    stated = stated_settings(directory, "image_processor")
    if stated is None:
        return None
    path, settings = stated
    named = settings.get("image_processor_type", settings.get("feature_extractor_type"))
    known = [found for start, found in _CLASSES.items() if str(named).startswith(start)]
    if not known:
        raise CheckpointError(
            f"{path} is of the processor {named!r}, which is not known here",
            why=f"known are those whose names begin with {', '.join(_CLASSES)}",
        )
    try:
        return _read(settings, known[0])
    except Unusable as error:
        raise CheckpointError(f"{path} says nothing usable", why=str(error)) from None


def stated_settings(directory: Path, section: str) -> tuple[Path, dict[str, Any]] | None:
    """The file of the model in ``directory`` that says how its inputs are prepared, and what it says, which
    is a ``section`` of newer ones; None where there is no such file.
    """
    path = next((directory / name for name in FILES if is_regular(directory / name)), None)
    if path is None:
        return None
    content = read_json(path)
    settings = content.get(section, content) if isinstance(content, dict) else None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return path, settings


def require_preprocessing(directory: Path) -> Preprocessing:
    """As :func:`preprocessing_of`; raises CheckpointError where no file says it, too."""
    found = preprocessing_of(directory)
    if found is None:
        raise CheckpointError(
            f"{directory} does not say how its images are prepared",
            why=f"there is no {' and no '.join(FILES)}, and a guess would give other numbers",
            fix=f"put the model's own {FILES[0]} beside its weights",
        )
    return found


def at_size(anatomy: Anatomy, directory: Path) -> Anatomy:
    """``anatomy`` for images of the size that the files in ``directory`` prepare them to."""
    patches, prepared = anatomy.patches, preprocessing_of(directory)
    if patches is None or prepared is None or prepared.size is None or prepared.size == patches.image:
        return anatomy
    if not patches.interpolates or any(side % patches.side for side in prepared.size):
        raise CheckpointError(
            "images are prepared to {} × {} pixels, and the model reads {} × {}".format(
                *prepared.size, *patches.image
            ),
            fix=f"take {FILES[0]} from the save that wrote the weights",
        )
    patches = replace(patches, image=prepared.size)
    return replace(anatomy, patches=patches, max_positions=patches.tokens)


def _read(settings: Mapping[str, Any], default: ProcessorDefaults) -> Preprocessing:
    found: dict[str, Any] = {}
    if settings.get("do_resize", True):
        number = settings.get("resample", default.resample)
        if type(number) is not int or not 0 <= number < len(FILTERS):
            raise Unusable("resample", f"must be a whole number from 0 to {len(FILTERS) - 1}")
        found["resample"] = FILTERS[number]
        found |= _size(settings.get("size"), default)
    if settings.get("do_center_crop", default.crops):
        crop = settings.get("crop_size", settings.get("size"))
        found["crop"] = _both(
            crop if isinstance(crop, dict) else {"height": crop, "width": crop}, "crop_size"
        )
    found["scale"] = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else None
    if settings.get("do_normalize", True):
        found["mean"] = settings.get("image_mean", default.mean)
        found["std"] = settings.get("image_std", default.std)
    return read(Preprocessing, found)


def _size(size: Any, default: ProcessorDefaults) -> dict[str, Any]:
    if size is None:
        size = 224  # of every class
    if not isinstance(size, dict):
        return {"shorter": size} if default.shorter else {"resize": [size, size]}
    if "shortest_edge" in size and not size.keys() - {"shortest_edge"}:
        return {"shorter": size["shortest_edge"]}
    return {"resize": _both(size, "size")}


def _both(size: Mapping[str, Any], key: str) -> list[Any]:
    if size.keys() != {"height", "width"}:
        raise Unusable(key, f"must have height and width, not {sorted(map(str, size))}")
    return [size["height"], size["width"]]
