"""``EncoderModel``: the bundle of an encoder, loaded, for whoever asks it about texts."""

from __future__ import annotations

from ..bundle.bundle import Bundle
from .encoder import Encoder


class EncoderModel:
    """What runs the graph of an encoder's bundle, its tokenizer, and the labels that it gives, if any.

    Raises:
        InputError: the bundle is a decoder.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, provider: str = "cpu") -> None:
        self.bundle = bundle
        self.encoder = Encoder.open(bundle, threads, provider=provider)
        self.tokenizer, self.labels = self.encoder.tokenizer, self.encoder.labels
