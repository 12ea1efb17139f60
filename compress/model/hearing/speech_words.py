"""How a model that hears writes down what was said: its tokenizer, behind the tokens that its settings ask
for.
"""

from __future__ import annotations

from ....runtime.text.tokenizer import Tokenizer
from ...text.calibration_audio import Words
from ..weights import WeightSource
from .speech_prompt import speech_prompt


def words_of(source: WeightSource) -> Words:
    """Those of the model ``source``."""
    reader, anatomy = source.reader, source.anatomy
    prompt = speech_prompt(reader.path, reader.config, anatomy.vocab_size)
    tokenizer = Tokenizer.open(reader.path)
    end = next(iter(tokenizer.eos_ids), None)
    return Words(tokenizer, prompt.usual(), end, anatomy.max_positions, anatomy.vocab_size)
