"""The models of a comparison of decoders, and the tokens they are asked to continue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ....errors import UnknownName
from ....storage import read_json, write_json
from .workspace import Place

LONGEST = 4096


@dataclass(frozen=True)
class Subject:
    """A model of a comparison.

    Attributes:
        title: for tables.
        group_size: input channels per scale, the largest that divides its shapes and that kernels have.
        demo: name of the demo model; None for random weights.
    """

    name: str
    title: str
    group_size: int
    demo: str | None = None


SUBJECTS = {
    "smollm2": Subject("smollm2", "SmolLM2-135M", 64, "smollm2"),
    "llama-0.9b": Subject("llama-0.9b", "a random-weight Llama of 0.9 B", 128),
}
HIDDEN, FFN, BLOCKS = 2048, 5632, 18


def subject(name: str) -> Subject:
    """The subject called ``name``.

    Raises:
        UnknownName: there is none.
    """
    if name not in SUBJECTS:
        raise UnknownName("subject", name, SUBJECTS)
    return SUBJECTS[name]


def checkpoint(place: Place, chosen: Subject) -> Path:
    """The float32 checkpoint of a subject, made if it is not there."""
    from ....compress.model.models import resolve
    from ..programs.random_llama import Size, save_random_llama

    if chosen.demo is not None:
        return resolve(chosen.demo).path
    target = place.checkpoint(chosen.name)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.partial")
        save_random_llama(part, Size(HIDDEN, FFN, BLOCKS, "float32")).rename(target)
    return target


def write_prompt(place: Place, chosen: Subject, source: Path) -> None:
    """Token ids of held-out Wikipedia, as many as all prompts have together at most."""
    from ....compress.text.corpus import texts_from
    from ....compress.text.token_windows import token_stream
    from ....runtime.text.tokenizer import Tokenizer

    ids = token_stream(Tokenizer.open(source), texts_from("wikipedia", split="held-out"), limit=LONGEST)
    place.prompts(chosen.name).parent.mkdir(parents=True, exist_ok=True)
    write_json(place.prompts(chosen.name), ids.tolist())


def prompts(place: Place, chosen: Subject, lengths: tuple[int, ...]) -> list[list[int]]:
    """Stretches of the text, one after the other: none is the beginning of another."""
    ids = read_json(place.prompts(chosen.name))
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return [ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]
