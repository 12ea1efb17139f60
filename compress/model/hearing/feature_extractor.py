"""How the sounds of a model become spectra, as the file of its feature extractor says."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....errors import CheckpointError
from ...text.log_mel import RATE, LogMel
from ..anatomy import Anatomy
from ..families._tensors import integer
from ..image_processor import FILES, stated_settings
from .hearing import Hearing

EXTRACTOR = "WhisperFeatureExtractor"
_LONGEST = 1 << 10  # seconds, and samples of a window and between two
# What would give other numbers, by what it is where it is left out.
_FIXED: dict[str, Any] = {"dither": 0.0, "padding_value": 0.0, "do_normalize": False}


def log_mel_of(directory: Path) -> LogMel | None:
    """What a model in ``directory`` is given of a sound; None where no file says it."""
    stated = stated_settings(directory, "feature_extractor")
    if stated is None:
        return None
    path, settings = stated
    named = settings.get("feature_extractor_type")
    if named != EXTRACTOR:
        raise CheckpointError(
            f"{path} is of the extractor {named!r}, which is not known here", why=f"known is {EXTRACTOR}"
        )
    for key, usual in _FIXED.items():
        if (given := settings.get(key, usual)) not in (usual, None):
            raise CheckpointError(
                f"{path} sets {key} to {given!r:.80}", why=f"sounds are read with {usual!r} only"
            )
    return _read(settings, path)


def _read(settings: Mapping[str, Any], path: Path) -> LogMel:
    """The numbers among ``settings``, each within bounds."""
    try:
        rate = integer(settings, "sampling_rate", RATE, largest=RATE)
        seconds = integer(settings, "chunk_length", 30, largest=_LONGEST)
        window = integer(settings, "n_fft", 400, largest=4 * _LONGEST)
        hop = integer(settings, "hop_length", 160, largest=_LONGEST)
        bins = integer(settings, "feature_size", 80, largest=_LONGEST)
    except CheckpointError as error:
        raise CheckpointError(f"{path} says nothing usable", why=error.what) from None
    if rate != RATE or window % 2 or window >= rate or 2 * hop > window:
        raise CheckpointError(
            f"{path}: {rate} samples a second in windows of {window}, {hop} apart, are not supported"
        )
    return LogMel(rate, seconds * rate, window, hop, bins)


def with_log_mel(anatomy: Anatomy, directory: Path) -> Anatomy:
    """``anatomy`` with what the files in ``directory`` say of sounds, where it hears."""
    hearing = anatomy.hearing
    found = None if hearing is None else log_mel_of(directory)
    if hearing is None or found is None:
        return anatomy
    if (found.bins, found.frames) != (hearing.bins, hearing.frames):
        raise CheckpointError(
            f"sounds become {found.frames} spectra of {found.bins} numbers, and the model reads "
            f"{hearing.frames} of {hearing.bins}",
            fix=f"take {FILES[0]} from the save that wrote the weights",
        )
    return replace(anatomy, hearing=replace(hearing, log_mel=found))


def require_log_mel(hearing: Hearing, directory: Path) -> LogMel:
    """The spectra that ``hearing`` reads; raises CheckpointError where no file in ``directory`` says it."""
    if hearing.log_mel is None:
        raise CheckpointError(
            f"{directory} does not say how its sounds become spectra",
            why=f"there is no {' and no '.join(FILES)}, and a guess would give other numbers",
            fix=f"put the model's own {FILES[0]} beside its weights",
        )
    return hearing.log_mel
