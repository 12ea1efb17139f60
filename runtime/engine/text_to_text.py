"""``TextToTextModel``: the bundle of an encoder–decoder, loaded: it reads a text and writes another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack

from ...errors import InputError
from ..bundle.bundle import HEARS, Bundle
from ..text.tokenizer import Tokenizer
from .encoder_decoder import Answer, EncoderDecoder
from .generate import MAX_NEW_TOKENS, Generation, Streaming, TextStream, generate_batch, stream
from .sampling import Sampling


class AnswerOptions(TypedDict, total=False):
    """The keyword arguments of :meth:`TextToTextModel.stream`."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int | None
    stop: Sequence[str]


class TextToTextModel(Streaming):
    """What runs both graphs, and the tokenizer.

    Raises:
        InputError: the bundle is no encoder–decoder.
        BundleError: a graph does not load, or is not the one that the manifest describes.
        MissingDependency: ONNX Runtime is not installed.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, provider: str = "cpu") -> None:
        if bundle.encoder_decoder.sound is not None:
            raise InputError(f"{bundle.path} hears sounds, and reads no text", fix=f"use: edgepress {HEARS}")
        super().__init__()
        self.bundle = bundle
        self.model = EncoderDecoder.open(bundle, threads, provider=provider)
        self.tokenizer = Tokenizer.open(bundle.path)

    def input_ids(self, text: str) -> list[int]:
        """Token ids of what is read.

        Raises:
            InputError: an empty text.
        """
        if not text:
            raise InputError("the input is empty")
        return self.tokenizer.encode(text)

    def stream(
        self,
        text: str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> TextStream:
        """Write the answer to ``text`` piece by piece; the arguments are those of :class:`Sampling`. Words of
        the input are not repetitions.

        Raises:
            InputError: a value outside its range, an empty text, or more tokens than the model reads or
                writes.
        """
        pieces = stream(
            Answer(self.model),
            self.tokenizer,
            self.input_ids(text),
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_k, top_p, repetition_penalty, seed),
            stop=stop,
            eos_ids=frozenset(self.model.section.eos_token_ids),
            seen=[self.model.section.start_token_id],
        )
        return self._begun(pieces)

    def generate(self, text: str, **options: Unpack[AnswerOptions]) -> Generation:
        """:meth:`stream` to its end."""
        with self._turn:
            return self.stream(text, **options).result

    def generate_batch(
        self,
        texts: Sequence[str],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> list[Generation]:
        """An answer to each of ``texts``, of whatever length, side by side; arguments as :meth:`stream`.

        Raises:
            InputError: as :meth:`stream`, for any text.
        """
        with self._turn:
            self._end_stream()
            return generate_batch(
                self.model,
                self.tokenizer,
                [self.input_ids(text) for text in texts],
                max_new_tokens=max_new_tokens,
                sampling=Sampling(temperature, top_k, top_p, repetition_penalty, seed),
                stop=stop,
                eos_ids=frozenset(self.model.section.eos_token_ids),
                seen=[self.model.section.start_token_id],
            )
