"""The calibration text of a decoder, kept in the user's cache once it was cut: all of a text is tokenised for
it, which a plan, the run behind it and other budgets on the same text need not do again.

It is kept under the hash of all that decides on it, and sealed. Of other models the texts that are drawn are
tokenised alone, which takes no time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...compress.model.weights import WeightSource
from ...compress.pipeline.journal import read_sealed, write_sealed
from ...compress.text.calibration import Calibration
from ...compress.text.corpus import text_sha256
from ...compress.text.token_batch import Row, batched, hash_of, rows_of
from ...files.storage import cache_directory, sha256_file, sha256_json

_MOST_TOKENS = 1 << 21  # of a text that is kept: with spaces 15 MB of JSON


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
