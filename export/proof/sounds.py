"""The sounds that a proof runs on, and what torch is given of them: spectra by transformers' own extractor,
so that those in the graph are proven with all that follows them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...compress.model.hearing.feature_extractor import require_log_mel
from ...compress.text.calibration_audio import made_sounds
from ...compress.text.spectra import spectra
from ...runtime.audio.wav_file import filled
from ...runtime.bundle.sound import Sound
from ..job import ExportJob

_SEED = 20_253
Floats = NDArray[np.float32]


def sounds_of(job: ExportJob, count: int) -> tuple[Floats, Floats]:
    """``count`` sounds ``[count, samples]`` of unequal length, silence behind them, and their spectra
    ``[count, bins, frames]``.
    """
    hearing = job.source.anatomy.hearing
    assert hearing is not None
    how = require_log_mel(hearing, job.path)
    sounds = filled(made_sounds(how, count, _SEED), Sound(rate=how.rate, samples=how.samples))
    return sounds, spectra(sounds, how).numpy()
