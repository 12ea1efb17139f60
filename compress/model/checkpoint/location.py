"""Where a checkpoint's files may lie: inside its directory, or in the hub cache that the directory is a
snapshot of."""

from __future__ import annotations

from pathlib import Path

from ....errors import RefusedByPolicy
from ....storage import contained


def inside(directory: Path, name: str) -> Path:
    """``directory / name`` for a relative name from a file that nobody vouches for.

    A hub cache keeps ``models--org--name/snapshots/REVISION/file`` as links into
    ``models--org--name/blobs``: there the links may lead anywhere below ``models--org--name``.

    Raises:
        RefusedByPolicy: the name is absolute, has ``..``, or is a link that leaves the directory.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise RefusedByPolicy(f"file name {name!r} points outside its directory {directory}")
    if directory.parent.name != "snapshots":
        return contained(directory, name)
    root = directory.parent.parent
    return contained(root, (directory.relative_to(root) / name).as_posix())
