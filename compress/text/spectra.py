"""The spectra that a model is given of a sound, in the numbers of transformers' extractor."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .log_mel import RATE, LogMel

Sounds = NDArray[np.float32]


def spectra(sounds: Sounds, how: LogMel) -> Tensor:
    """What a model is given of ``sounds [batch, samples]``, which are shorter or as long as it reads:
    ``[batch, bins, frames]`` float32, by transformers.
    """
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(
        feature_size=how.bins,
        sampling_rate=how.rate,
        hop_length=how.hop,
        chunk_length=how.seconds,
        n_fft=how.window,
    )
    found = extractor(list(sounds), sampling_rate=how.rate, return_tensors="np")
    return torch.from_numpy(np.asarray(found["input_features"], np.float32))


def filters(how: LogMel) -> NDArray[np.float32]:
    """The filters ``[bins, window / 2 + 1]`` that add up the powers of a spectrum."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        num_frequency_bins=1 + how.window // 2,
        num_mel_filters=how.bins,
        min_frequency=0.0,
        max_frequency=RATE / 2,
        sampling_rate=how.rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return np.ascontiguousarray(bank.T, np.float32)
