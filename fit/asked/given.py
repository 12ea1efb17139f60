"""What a user gives to choose and to judge by, text, images or sounds, in three parts, and what of it is
calibrated on.

The calibration text of a decoder, kept in the user's cache once it was cut: all of a text is tokenised for
it, which a plan, the run behind it and other budgets on the same text need not do again.

It is kept under the hash of all that decides on it, and sealed. Of other models the texts that are drawn are
tokenised alone, which takes no time.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...compress.files_as_calibration import calibration_of_files
from ...compress.model.family import read_by
from ...compress.model.hearing.feature_extractor import require_log_mel
from ...compress.model.weights import WeightSource
from ...compress.pipeline.journal import read_sealed, write_sealed
from ...compress.sample_length import sample_length, text_inputs
from ...compress.text.calibration import Calibration, calibration_from
from ...compress.text.calibration_audio import said_in
from ...compress.text.corpus import read_corpus, text_sha256
from ...compress.text.token_batch import Row, batched, hash_of, rows_of
from ...errors import InputError
from ...files.storage import cache_directory, sha256_file, sha256_json
from ...runtime.audio.wav_file import read_sound, sound_files
from ...runtime.bundle.preprocessing import Sound
from ...runtime.images.image_file import image_files, open_image
from ...runtime.text.tokenizer import Tokenizer
from ...terminal.progress import Progress
from ..candidates import model_kind
from ..quantities import ACCURACY, ENCODER_DECODER
from .file_parts import FileKind, split_files
from .texts import Texts, require_groups, split_text, windows_of
from .wish import Wish

_BATCH_TOKENS = 2048
_MOST_TOKENS = 1 << 21  # of a text that is kept: with spaces 15 MB of JSON


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


def files_of(source: WeightSource) -> FileKind:
    """Those that the model ``source`` reads."""
    hearing = source.anatomy.hearing
    if hearing is None:
        return FileKind("images", image_files, open_image)
    how = require_log_mel(hearing, source.reader.path)
    read = partial(read_sound, how=Sound(rate=how.rate, samples=how.samples))
    return FileKind("sounds", sound_files, read, _words)


def _words(sound: Path) -> list[Path]:
    """The file that says what is said in it; raises CalibrationError where there is none."""
    said_in(sound)
    return [sound.with_suffix(".txt")]


def kept_calibration(
    source: WeightSource, text: str, settings: dict[str, Any], cut: Callable[[], Calibration]
) -> Calibration:
    """What ``cut`` makes of ``text`` for a model, with ``settings`` (samples, length, seed, batch size); or
    what it made of it before.
    """
    if source.anatomy.kind != "decoder":
        return cut()
    file = _file(source, text, settings)
    if (known := read_sealed(file)) is not None:
        return _restored(known, text)
    found = cut()
    if found.effective_tokens <= _MOST_TOKENS and not found.protected:
        rows = [row.ids.tolist() for batch in found.batches for row in rows_of(batch)]
        with suppress(OSError):  # the next one cuts it again
            file.parent.mkdir(parents=True, exist_ok=True)
            size = len(found.batches[0].input_ids)
            write_sealed(file, {"of": found.describe(), "batch_size": size, "rows": rows})
    return found


def _file(source: WeightSource, text: str, settings: dict[str, Any]) -> Path:
    """By the content of the text, the config and what lies beside the weights, the tokenizer above all."""
    reader = source.reader
    beside = {name: sha256_file(reader.file(name)) for name in ("config.json", *reader.companions())}
    key = sha256_json([__version__, beside, text_sha256(text), settings])
    return cache_directory() / "fit" / f"text-{key}.json"


def _restored(known: dict[str, Any], text: str) -> Calibration:
    """The hash is over the ids that are there, not the one that was kept."""
    rows = [Row(np.asarray(ids, np.int64)) for ids in known["rows"]]
    batches = tuple(batched(rows, known["batch_size"], pad=0))
    return Calibration(batches=batches, **{**known["of"], "source": text, "sha256": hash_of(batches)})
