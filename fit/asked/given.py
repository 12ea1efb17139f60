"""What a user gives to choose and to judge by, text, images or sounds, in three parts, and what of it is
calibrated on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...compress.files_as_calibration import calibration_of_files
from ...compress.model.family import read_by
from ...compress.model.weights import WeightSource
from ...compress.sample_length import sample_length, text_inputs
from ...compress.text.calibration import Calibration, calibration_from
from ...compress.text.corpus import read_corpus
from ...errors import InputError
from ...runtime.text.tokenizer import Tokenizer
from ...terminal.progress import Progress
from ..candidates import model_kind
from ..quantities import ACCURACY, ENCODER_DECODER
from .file_kinds import files_of
from .file_parts import split_files
from .kept_calibration import kept_calibration
from .texts import Texts, require_groups, split_text, windows_of
from .wish import Wish

_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Given:
    """The parts; tokens of a sequence (of an image or sound all that it becomes); ``windows`` of a decoder's
    text in a measurement; and the calibration.
    """

    texts: Texts
    length: int
    windows: int
    calibration: Calibration


def read_given(wish: Wish, model: Path, source: WeightSource, directory: Path, progress: Progress) -> Given:
    """What ``wish`` gives the model ``source``, whose files are at ``model``; its parts are in
    ``directory``.
    """
    length = sample_length(source.anatomy, wish.length)
    if read_by(source.anatomy) != "text":
        return _files(wish, source, length, directory, progress)
    tokenizer = Tokenizer.open(model)
    paired = model_kind(source.anatomy) == ENCODER_DECODER
    texts = split_text(wish.text, wish.field, directory / "text", paired=paired)
    _say_repeated(texts, "documents of the text", progress)
    if any(one.slice == "tasks" for one in wish.budgets):
        require_groups(texts.held_out)
    windows = _windows(wish, source, texts, tokenizer, length)
    return Given(texts, length, windows, _calibration(wish, source, texts.calibration, tokenizer, length))


def _files(wish: Wish, source: WeightSource, length: int, directory: Path, progress: Progress) -> Given:
    """Images, or sounds."""
    kind = files_of(source)
    texts = split_files(wish.text, kind, directory, samples=wish.samples, seed=wish.seed, progress=progress)
    _say_repeated(texts, kind.name, progress)
    calibration = calibration_of_files(
        source,
        texts.calibration,
        samples=wish.samples,
        seed=wish.seed,
        batch_size=max(1, _BATCH_TOKENS // length),
    )
    return Given(texts, length, 1, calibration)


def _say_repeated(texts: Texts, what: str, progress: Progress) -> None:
    if texts.repeated:
        progress.note(f"{texts.repeated} {what} are there already, and left out")


def _calibration(
    wish: Wish, source: WeightSource, text: str, tokenizer: Tokenizer, length: int
) -> Calibration:
    settings: dict[str, Any] = {"samples": wish.samples, "length": length, "seed": wish.seed}
    settings["batch_size"] = max(1, _BATCH_TOKENS // length)
    return kept_calibration(
        source,
        text,
        settings,
        lambda: calibration_from(text, tokenizer, **text_inputs(source.anatomy), **settings),
    )


def _windows(wish: Wish, source: WeightSource, texts: Texts, tokenizer: Tokenizer, length: int) -> int:
    """Of a decoder's text, as many as both parts have."""
    parts = (texts.development, texts.held_out)
    if source.anatomy.kind == "decoder":
        return min(windows_of(path, tokenizer, length) for path in parts)
    needed = [one for one in wish.budgets if one.quantity is ACCURACY]
    labelled = source.anatomy.labels_texts and all(read_corpus(str(path)).labels for path in parts)
    if needed and not labelled:
        raise InputError(
            f"{needed[0].shown()}: the text has no labels that this model gives",
            fix='give a .jsonl file with rows like {"text": "…", "label": "…"}',
        )
    return 1
