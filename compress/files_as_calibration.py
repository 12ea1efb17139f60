"""Calibration of models that read no text: with the images or the sounds in a folder, as their own files say
that these are prepared.
"""

from .model.hearing.feature_extractor import require_log_mel
from .model.hearing.speech_prompt import words_of
from .model.image_processor import require_preprocessing
from .model.weights import WeightSource
from .text.calibration import Calibration
from .text.calibration_audio import calibration_of_sounds
from .text.drawn_files import calibration_of_images


def calibration_of_files(
    source: WeightSource, folder: str, *, samples: int, seed: int, batch_size: int
) -> Calibration:
    """So many ``samples`` of the files in ``folder`` that the model ``source`` reads."""
    anatomy, path = source.anatomy, source.reader.path
    if anatomy.hearing is not None:
        return calibration_of_sounds(
            folder,
            require_log_mel(anatomy.hearing, path),
            words_of(source),
            tokens=anatomy.hearing.tokens,
            samples=samples,
            seed=seed,
            batch_size=batch_size,
        )
    assert anatomy.patches is not None
    return calibration_of_images(
        folder,
        require_preprocessing(path),
        tokens=anatomy.patches.tokens,
        samples=samples,
        seed=seed,
        batch_size=batch_size,
    )
