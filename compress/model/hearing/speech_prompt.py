"""``SpeechPrompt``: the tokens in front of what a Whisper writes, as its generation settings say them: the
language, the task, and that no times are wanted; and what it never writes.

They are read as transformers 5 reads them for sounds that are read at once, whose answer has no times.

The heads by which transformers times words: pairs of a decoder's layer and a head of its attention to the
sound, in ``generation_config.json``. They follow the layers that stay; whose heads change has none.

How a model that hears writes down what was said: its tokenizer, behind the tokens that its settings ask
for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import CheckpointError
from ....files.storage import is_regular, read_json
from ....runtime.text.tokenizer import Tokenizer
from ...text.calibration_audio import Words
from ..anatomy import Anatomy
from ..meta_model import GENERATION
from ..weights import WeightSource

_ENGLISH = "en"
TRANSCRIBE = "transcribe"
_KEY = "alignment_heads"


@dataclass(frozen=True)
class SpeechPrompt:
    """What stands in front of an answer.

    Attributes:
        places: behind the start the tokens of each place, of which the likeliest is written: all languages
            where the settings name none, one elsewhere.
        languages, tasks: their tokens by code and by name.
        never, never_first: tokens that are never written, and those that no answer begins with.
    """

    places: tuple[tuple[int, ...], ...]
    languages: Mapping[str, int]
    tasks: Mapping[str, int]
    never: tuple[int, ...]
    never_first: tuple[int, ...]

    def usual(self) -> list[int]:
        """One token a place, without a sound to choose by: English where there are several."""
        english = self.languages.get(_ENGLISH)
        return [english if english in place else place[0] for place in self.places]


def speech_prompt(directory: Path, config: Mapping[str, Any], vocabulary: int) -> SpeechPrompt:
    """That of the model in ``directory`` with so many tokens."""
    file = directory / GENERATION
    stated = read_json(file) if is_regular(file) else {}
    settings = _Settings(stated if isinstance(stated, dict) else {}, config, vocabulary)
    if settings.stated.get("return_timestamps"):
        raise CheckpointError(
            f"{GENERATION} asks for times (return_timestamps), which no answer here has",
            why="set it to false for answers without times",
        )
    languages = {code.strip("<|>"): token for code, token in settings.named("lang_to_id").items()}
    tasks = settings.named("task_to_id")
    return SpeechPrompt(
        tuple(_places(settings, languages, tasks)),
        languages,
        tasks,
        settings.suppressed("suppress_tokens"),
        settings.suppressed("begin_suppress_tokens"),
    )


def _places(
    settings: _Settings, languages: Mapping[str, int], tasks: Mapping[str, int]
) -> list[tuple[int, ...]]:
    language, task = settings.word("language"), settings.word("task")
    places = [] if language or task else settings.forced()
    if language is not None:
        code = language.lower().strip("<|>")
        places = [(_known(_code(code), languages, "language"),)]
    elif languages and (not places or not places[0]):
        places[:1] = [tuple(sorted(languages.values()))]
    if task is not None or (language is not None and tasks):
        places.append((_known(task or TRANSCRIBE, tasks, "task"),))
    silent = settings.one("no_timestamps_token_id")
    if silent is not None and (not places or places[-1] != (silent,)):
        places.append((silent,))
    return [place for place in places if place]


def _code(language: str) -> str:
    """The code of a language that is given by its name, as transformers knows it."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    return str(TO_LANGUAGE_CODE.get(language, language))


def _known(name: str, tokens: Mapping[str, int], what: str) -> int:
    if name not in tokens:
        raise CheckpointError(
            f"{GENERATION} asks for the {what} {name!r:.40}, which has no token there",
            why=f"known are {', '.join(sorted(tokens)[:8]) or 'none'}",
        )
    return tokens[name]


class _Settings:
    """The generation settings, and the config for what they leave out, under typed checks."""

    def __init__(self, stated: Mapping[str, Any], config: Mapping[str, Any], vocabulary: int) -> None:
        self.stated, self.config, self.vocabulary = stated, config, vocabulary

    def _token(self, value: object, key: str) -> int:
        if type(value) is not int or not 0 <= value < self.vocabulary:
            raise CheckpointError(
                f"{GENERATION}: {key} has {value!r:.40}, which is none of the {self.vocabulary} tokens"
            )
        return value

    def one(self, key: str) -> int | None:
        value = self.stated.get(key)
        return None if value is None else self._token(value, key)

    def word(self, key: str) -> str | None:
        value = self.stated.get(key)
        if value is not None and not isinstance(value, str):
            raise CheckpointError(f"{GENERATION}: {key} must be a text, not {value!r:.40}")
        return value

    def named(self, key: str) -> dict[str, int]:
        value = self.stated.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise CheckpointError(f"{GENERATION}: {key} must be a table of tokens")
        return {str(name): self._token(token, key) for name, token in value.items()}

    def forced(self) -> list[tuple[int, ...]]:
        """The older way to say the prompt: pairs of place and token, null where the language is found."""
        key = "forced_decoder_ids"
        value = self.stated.get(key)
        value = self.config.get(key) if value is None else value
        pairs = [] if value is None else value
        if not isinstance(pairs, list) or not all(isinstance(one, list) and len(one) == 2 for one in pairs):
            raise CheckpointError(f"{GENERATION}: {key} must be a list of places and tokens")
        if [place for place, _ in pairs] != list(range(1, len(pairs) + 1)):
            raise CheckpointError(f"{GENERATION}: {key} must count the places behind the start from 1")
        return [() if token is None else (self._token(token, key),) for _, token in pairs]

    def suppressed(self, key: str) -> tuple[int, ...]:
        """Tokens that are not written; numbers that are none never are."""
        value = self.stated.get(key) if self.stated else self.config.get(key)
        tokens = [token for token in value or [] if type(token) is int] if isinstance(value, list) else []
        return tuple(sorted({token for token in tokens if 0 <= token < self.vocabulary}))


def renumbered(checkpoint: Path, before: Anatomy, kept: Sequence[int]) -> dict[str, Any]:
    """What becomes of the file when of the blocks of ``before``, which it belongs to, those in ``kept`` stay:
    its content by its name, or nothing where it says no heads.
    """
    settings = _settings(checkpoint)
    if settings is None:
        return {}
    first = before.layers()[0]
    layers = [index - first for index in kept if index >= first]
    heads = [
        [layers.index(pair[0]), pair[1]] for pair in settings[_KEY] if _is_pair(pair) and pair[0] in layers
    ]
    return {GENERATION: {**settings, _KEY: heads}} if heads else without_heads(checkpoint)


def without_heads(checkpoint: Path) -> dict[str, Any]:
    """The same where none of them is what it was."""
    settings = _settings(checkpoint)
    if settings is None:
        return {}
    return {GENERATION: {name: value for name, value in settings.items() if name != _KEY}}


def _settings(checkpoint: Path) -> dict[str, Any] | None:
    path = checkpoint / GENERATION
    settings = read_json(path) if path.is_file() else None
    return settings if isinstance(settings, dict) and isinstance(settings.get(_KEY), list) else None


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)


def words_of(source: WeightSource) -> Words:
    """Those of the model ``source``."""
    reader, anatomy = source.reader, source.anatomy
    prompt = speech_prompt(reader.path, reader.config, anatomy.vocab_size)
    tokenizer = Tokenizer.open(reader.path)
    end = next(iter(tokenizer.eos_ids), None)
    return Words(tokenizer, prompt.usual(), end, anatomy.max_positions, anatomy.vocab_size)
