"""What stands in front of what a model writes of a sound: the language and the task, as a caller asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...errors import InputError, UnknownName
from ..bundle.graph_sections import EncoderDecoderSection

TRANSCRIBE = "transcribe"


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
