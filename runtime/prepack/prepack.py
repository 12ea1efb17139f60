"""Making an entry of the prepacked cache: in a process of its own, after the first run, and never twice.

    python -m edgepress.runtime.prepack.prepack BUNDLE

Repacking takes the time and the memory of a second load: a starter that finds no entry runs without, and has
one made when it has answered. The process that makes it holds a lock; others that want the same leave it to
that one. A killed process leaves a staging directory, which nothing reads and the next one sweeps away.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from ...errors import EdgepressError, InputError, OutOfResource, OutputBusy, OutputExists
from ...limits import address_space_limit
from ...staging import Staging
from ...storage import require_disk, write_atomic, write_json
from ..bundle.bundle import Bundle
from ..bundle.directory import MANIFEST
from ..session.session import onnxruntime, save_optimized
from ..session.threads import free_memory
from . import prepacked
from .int8_weights import save_prefill

# An entry has the weights twice, as they were and repacked, and once more with those of the prefill graph;
# the process that makes it has them as often.
_REPACKED, _WITH_PREFILL = 2.4, 1.1
_NICE = 10


def limit_bytes() -> int:
    """What all entries together may take: ``EDGEPRESS_CACHE_GB``, 16 unless set.

    Raises:
        InputError: it is not a number, or below 0.
    """
    text = os.environ.get("EDGEPRESS_CACHE_GB", "16")
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < float("inf"):
        raise InputError(f"EDGEPRESS_CACHE_GB is {text!r}, it must be a number of gigabytes, 0 or more")
    return int(gigabytes * 1e9)


def prepack(bundle: Bundle) -> prepacked.PrepackedEntry | None:
    """Make the entry for ``bundle``, unless it is there; None when another process is making it.

    Raises:
        InputError: it would not fit below the size limit of the cache.
        OutOfResource: the disk has no room.
        BundleError: ONNX Runtime cannot load or write the graph, or the weights differ from the manifest.
    """
    found = prepacked.find(bundle)
    if found is not None:
        return found
    bundle.check_weights()
    needed, limit = _bytes(bundle), limit_bytes()
    if needed > limit:
        raise InputError(
            f"{needed / 1e9:.1f} GB do not fit a cache of at most {limit / 1e9:.1f} GB",
            fix="set EDGEPRESS_CACHE_GB to more",
        )
    prepacked.folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    make_room(limit - needed)
    require_disk(prepacked.folder(), needed)
    try:
        with Staging(prepacked.entry_path(bundle)) as stage:
            _write(bundle, stage.result)
            stage.publish()
    except OutputBusy:
        return None
    except OutputExists:
        pass  # made while this process looked for room
    return prepacked.find(bundle)


def _write(bundle: Bundle, directory: Path) -> None:
    directory.mkdir(mode=0o700)
    save_optimized(bundle.graph, directory / prepacked.GRAPH)
    if bundle.prefill is not None:
        save_prefill(bundle, directory / prepacked.PREFILL)
    for file in directory.iterdir():
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
    manifest = {
        "schema": prepacked.SCHEMA,
        "name": bundle.name,
        "scheme": bundle.scheme,
        "onnxruntime": onnxruntime().__version__,
        "files": prepacked.describe(directory),
    }
    write_json(directory / MANIFEST, manifest)


def make_room(limit: int) -> list[prepacked.PrepackedEntry]:
    """Drop the entries that were used least recently until the rest takes ``limit`` bytes, and what killed
    processes left; returns what was dropped.
    """
    _sweep()
    kept = prepacked.entries()
    dropped = [entry for entry in kept if not entry.whole]
    kept = [entry for entry in kept if entry.whole]
    while kept and sum(entry.bytes for entry in kept) > limit:
        dropped.append(kept.pop(0))
    for entry in dropped:
        entry.drop()
    return dropped


def _sweep() -> None:
    """Remove staging directories that no process holds, and what was left of dropping an entry."""
    root = prepacked.folder()
    for partial in root.glob(".*.partial"):
        with suppress(OutputBusy, OutputExists), Staging(partial.with_name(partial.stem[1:])):
            pass
    for doomed in root.glob(".*.dropped"):
        shutil.rmtree(doomed, ignore_errors=True)


def prepack_later(bundle: Bundle) -> bool:
    """Start a process that makes the entry for ``bundle``, where that is worth it; returns at once.

    It is worth it for a model that is not tiny, where there is room in memory, on the disk and in the cache,
    and where it has not failed before; never where address space is limited.
    """
    process = _started(bundle) if address_space_limit() is None else None
    if process is None:
        return False
    threading.Thread(target=process.wait, daemon=True).start()
    return True


def prepack_apart(bundle: Bundle) -> bool:
    """Have the entry for ``bundle`` made in a process of its own and wait for that; whether there is one
    now. Under the same conditions as :func:`prepack_later`.
    """
    if prepacked.find(bundle) is None:
        process = _started(bundle)
        if process is not None:
            process.wait()
    return prepacked.find(bundle) is not None


def _started(bundle: Bundle) -> subprocess.Popen[bytes] | None:
    wanted = prepacked.worth(bundle) and not getattr(sys, "frozen", False)
    if not wanted or not _has_room(bundle) or _failure(bundle).exists():
        return None
    command = [sys.executable, "-P", "-m", f"{__package__}.prepack", str(bundle.path.absolute())]
    silent = subprocess.DEVNULL
    try:
        # A session of its own: it outlives this process, and is not for the terminal's Ctrl-C.
        return subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent, start_new_session=True)
    except OSError:
        return None


def _bytes(bundle: Bundle) -> int:
    """What the entry for ``bundle`` takes on the disk, and making it in memory, at most."""
    prefill = bundle.weight_bytes + _WITH_PREFILL * bundle.prefill_bytes if bundle.prefill else 0
    return int(_REPACKED * bundle.weight_bytes + prefill)


def _has_room(bundle: Bundle) -> bool:
    needed = _bytes(bundle)
    if needed > min(free_memory(), limit_bytes()):
        return False
    try:
        require_disk(prepacked.folder(), needed)
    except OutOfResource:
        return False
    return True


def _failure(bundle: Bundle) -> Path:
    """Where it is noted that the entry for ``bundle`` could not be made, and why."""
    return prepacked.entry_path(bundle).with_suffix(".failed")


def clear() -> list[prepacked.PrepackedEntry]:
    """Drop every entry, and the memory of what could not be made; returns what was dropped."""
    for note in prepacked.folder().glob("*.failed"):
        note.unlink(missing_ok=True)
    return make_room(0)


def failures() -> list[str]:
    """What could not be made, each with its reason, until :func:`clear`."""
    notes = sorted(prepacked.folder().glob("*.failed"))
    return [note.read_text(encoding="utf-8").splitlines()[0][:200] for note in notes]


def main() -> None:
    """The process that makes an entry."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    bundle = Bundle.open(sys.argv[1])
    try:
        prepack(bundle)
    except EdgepressError as error:
        write_atomic(_failure(bundle), f"{bundle.name}: {error}\n".encode())
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
