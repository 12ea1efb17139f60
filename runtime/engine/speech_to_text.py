"""``SpeechToTextModel``: the bundle of a model that hears, loaded: it writes down what is said in a sound.

What stands in front of what a model writes of a sound: the language and the task, as a caller asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np

from ...errors import InputError, UnknownName
from ..audio.wav_file import Samples, filled, read_sound
from ..bundle.bundle import READS, Bundle
from ..bundle.graph_sections import EncoderDecoderSection
from ..bundle.preprocessing import Sound
from ..text.tokenizer import Tokenizer
from .decoder import Logits
from .encoder_decoder import EncoderDecoder
from .generate import Generation, Streaming, TextStream, generate_batch, stream
from .sampling import Sampling

SoundInput = Path | str | Samples
TRANSCRIBE = "transcribe"


class SpeechOptions(TypedDict, total=False):
    """The keyword arguments of :meth:`SpeechToTextModel.stream`."""

    language: str | None
    task: str | None
    max_new_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int | None
    stop: Sequence[str]


class SpeechToTextModel(Streaming):
    """What runs both graphs, and the tokenizer. Sounds are files, or samples from -1 to 1 at :attr:`sound`'s
    rate.

    Raises:
        InputError: the bundle hears nothing.
        BundleError: a graph does not load, or is not the one that the manifest describes.
        MissingDependency: ONNX Runtime is not installed.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, provider: str = "cpu") -> None:
        super().__init__()
        self.sound = sound_of(bundle)
        self.bundle = bundle
        self.model = EncoderDecoder.open(bundle, threads, provider=provider)
        self.tokenizer = Tokenizer.open(bundle.path)

    def stream(
        self,
        sound: SoundInput,
        *,
        language: str | None = None,
        task: str | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> TextStream:
        """Write what is said in ``sound`` piece by piece, in the ``language`` of this code, or that which the
        model hears; a ``task`` may be to translate it. As many tokens as the model writes at most, where no
        number is given; the others are those of :class:`Sampling`.

        Raises:
            InputError: a value outside its range, a sound that cannot be read, or more tokens than the model
                writes.
            UnknownName: a language or task that it does not know.
        """
        prompt = prompt_of(self.model.section, language, task)
        pieces = stream(
            _One(self.model, self._samples([sound]), prompt),
            self.tokenizer,
            self._places(prompt),
            max_new_tokens=self._room(prompt, max_new_tokens),
            sampling=Sampling(temperature, top_k, top_p, repetition_penalty, seed),
            stop=stop,
            eos_ids=frozenset(self.model.section.eos_token_ids),
        )
        return self._begun(pieces)

    def generate(self, sound: SoundInput, **options: Unpack[SpeechOptions]) -> Generation:
        """:meth:`stream` to its end."""
        with self._turn:
            return self.stream(sound, **options).result

    def generate_batch(
        self,
        sounds: Sequence[SoundInput],
        *,
        language: str | None = None,
        task: str | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        step: Callable[[], None] | None = None,
    ) -> list[Generation]:
        """What is said in each of ``sounds``, side by side; arguments as :meth:`stream`. ``step`` is called
        after each token of all.

        Raises:
            InputError, UnknownName: as :meth:`stream`, for any sound.
        """
        prompt = prompt_of(self.model.section, language, task)
        with self._turn:
            self._end_stream()
            return generate_batch(
                _Several(self.model, self._samples(sounds), prompt),
                self.tokenizer,
                [self._places(prompt)] * len(sounds),
                max_new_tokens=self._room(prompt, max_new_tokens),
                sampling=Sampling(temperature, top_k, top_p, repetition_penalty, seed),
                stop=stop,
                eos_ids=frozenset(self.model.section.eos_token_ids),
                step=step,
            )

    def _samples(self, sounds: Sequence[SoundInput]) -> Samples:
        if not len(sounds):
            raise InputError("there are no sounds to hear")
        return filled([self._one(sound) for sound in sounds], self.sound)

    def _one(self, sound: SoundInput) -> Samples:
        if isinstance(sound, (str, Path)):
            return read_sound(sound, self.sound)
        found = np.asarray(sound, np.float32)
        if found.ndim != 1 or not 0 < len(found) <= self.sound.samples or not np.isfinite(found).all():
            raise InputError(
                f"samples of the shape {list(found.shape)} are no sound that this model reads",
                fix=f"give up to {self.sound.samples} finite numbers in a row, {self.sound.rate} a second",
            )
        return found

    def _places(self, prompt: Sequence[Sequence[int]]) -> list[int]:
        """A token for each place in front of the answer."""
        return [self.model.section.start_token_id, *(place[0] for place in prompt)]

    def _room(self, prompt: Sequence[Sequence[int]], new_tokens: int | None) -> int:
        return self.model.section.context_length - 1 - len(prompt) if new_tokens is None else new_tokens


def sound_of(bundle: Bundle) -> Sound:
    """What ``bundle`` hears."""
    sound = bundle.encoder_decoder.sound
    if sound is None:
        raise InputError(f"{bundle.path} reads text, and hears nothing", fix=f"use: edgepress {READS}")
    return sound


class _One:
    """A sound and its answer: what :func:`.generate.stream` asks of a decoder."""

    def __init__(self, model: EncoderDecoder, sounds: Samples, prompt: list[list[int]]) -> None:
        self.model, self.sounds, self.prompt = model, sounds, prompt

    def prefill(self, _: Sequence[int], *, new_tokens: int = 0) -> Logits:
        """As :meth:`EncoderDecoder.listen`, logits ``[vocab]``."""
        found: Logits = self.model.listen(self.sounds, self.prompt, new_tokens=new_tokens)[0]
        return found

    def step(self, token: int) -> Logits:
        """As :meth:`EncoderDecoder.step`, logits ``[vocab]``."""
        found: Logits = self.model.step([token])[0]
        return found


class _Several:
    """The same of several."""

    def __init__(self, model: EncoderDecoder, sounds: Samples, prompt: list[list[int]]) -> None:
        self.model, self.sounds, self.prompt = model, sounds, prompt

    def prefill(self, _: Sequence[Sequence[int]], *, new_tokens: int = 0) -> Logits:
        """As :meth:`EncoderDecoder.listen`."""
        return self.model.listen(self.sounds, self.prompt, new_tokens=new_tokens)

    def step(self, tokens: Sequence[int]) -> Logits:
        """As :meth:`EncoderDecoder.step`."""
        return self.model.step(tokens)


def prompt_of(
    section: EncoderDecoderSection, language: str | None = None, task: str | None = None
) -> list[list[int]]:
    """What stands in front of an answer: by place the tokens of which the likeliest is written; a
    ``language`` without a task is transcribed.
    """
    sound, prompt = section.sound, [list(place) for place in section.prompt]
    assert sound is not None
    if language is not None:
        languages = set(sound.languages.values())
        token = _token("language", language, sound.languages)
        prompt = _put(prompt, languages, token, 0)
    chosen = TRANSCRIBE if task is None and language is not None and sound.tasks else task
    if chosen is not None and (task is not None or not _has(prompt, sound.tasks.values())):
        behind = 1 if _has(prompt, sound.languages.values()) else 0
        prompt = _put(prompt, set(sound.tasks.values()), _token("task", chosen, sound.tasks), behind)
    return prompt


def _has(prompt: Sequence[Sequence[int]], tokens: Iterable[int]) -> bool:
    return any(set(place) & set(tokens) for place in prompt)


def _put(prompt: list[list[int]], tokens: set[int], token: int, place: int) -> list[list[int]]:
    """``prompt`` with ``token`` where it has one of ``tokens``, or else before ``place``."""
    at = next((index for index, known in enumerate(prompt) if set(known) & tokens), None)
    front, back = (prompt[:place], prompt[place:]) if at is None else (prompt[:at], prompt[at + 1 :])
    return [*front, [token], *back]


def _token(what: str, name: str, known: dict[str, int]) -> int:
    if not known:
        raise InputError(
            f"this model has no {what} to choose", fix=f"leave it out: it writes the one {what} that it knows"
        )
    if name not in known:
        raise UnknownName(what, name, sorted(known))
    return known[name]
