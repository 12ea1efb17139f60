"""The hash of a model, taken once: a resumed run trusts it as long as each file has the size, the time and a
sample of the bytes that it had.
"""

import hashlib
from pathlib import Path
from typing import Any

from ..model.checkpoint.reader import CheckpointReader
from .journal import MODEL_HASH, read_sealed, write_sealed

_SAMPLES, _SAMPLE_BYTES = 64, 4096  # of a file, evenly from its first byte to its last


def recalled(reader: CheckpointReader, work: Path) -> str | None:
    """The fingerprint that was remembered in ``work``; None where there is none, or a file has changed."""
    found = read_sealed(work / MODEL_HASH)
    if found is None or found.get("files") != _looks(reader):
        return None
    return str(found["fingerprint"])


def remember(reader: CheckpointReader, fingerprint: str, work: Path) -> None:
    """Keep the ``fingerprint`` of a model in ``work``."""
    write_sealed(work / MODEL_HASH, {"files": _looks(reader), "fingerprint": fingerprint})


def _looks(reader: CheckpointReader) -> dict[str, Any]:
    return {name: _look(reader, path) for name, path in reader.files().items()}


def _look(reader: CheckpointReader, path: Path) -> list[Any]:
    """Size, time, and hash of a sample."""
    status, digest, part = path.stat(), hashlib.sha256(), memoryview(bytearray(_SAMPLE_BYTES))
    last = max(0, status.st_size - _SAMPLE_BYTES)
    for index in range(_SAMPLES):
        digest.update(part[: reader.read_into(part, path, last * index // (_SAMPLES - 1))])
    return [status.st_size, status.st_mtime_ns, digest.hexdigest()]
