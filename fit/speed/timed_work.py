"""What is measured of a bundle, and predicted before: tokens of a prompt or a sentence, if a model reads so
many, new ones after a prompt, if it writes so many, and sentences of a batch.
"""

from __future__ import annotations

from ...compress.model.anatomy import Anatomy
from ...compress.sample_length import filled_length
from ...devices.predict.subject import PredictedWork
from ...runtime.bundle.bundle import Bundle

PROMPT, NEW_TOKENS, BATCH = 128, 128, 32


def prompt_tokens(most: int, *, filled: bool = False) -> int:
    """Tokens of what is read by a model that reads at most so many; or always, texts being ``filled`` up."""
    return most if filled else min(PROMPT, most)


def timed_lengths(bundle: Bundle) -> tuple[int, int]:
    """Tokens that are read, and new ones that are written, where ``bundle`` is timed: a decoder has one
    context for both.
    """
    if bundle.kind == "encoder":
        return prompt_tokens(bundle.encoder.max_length, filled=bundle.encoder.filled), NEW_TOKENS
    if bundle.kind == "decoder":
        half = bundle.decoder.context_length // 2
        return prompt_tokens(half), min(NEW_TOKENS, half)
    both = bundle.encoder_decoder
    return prompt_tokens(both.max_length), min(NEW_TOKENS, both.context_length - len(both.prompt))


def timed_work(anatomy: Anatomy) -> PredictedWork:
    """The same of a model without a bundle."""
    decoder = anatomy.kind == "decoder"
    most = anatomy.max_positions // 2 if decoder else anatomy.max_positions
    read = prompt_tokens(most, filled=not decoder and filled_length(anatomy) is not None)
    return PredictedWork(read, min(NEW_TOKENS, most), BATCH)
