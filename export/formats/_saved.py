"""Formats that are not bundles of ours but what other runtimes load: a directory that one function saves and
another proves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ... import __version__
from ...storage import hash_tree, write_json
from ..bundle_manifest import MANIFEST, parameters, scheme_label
from ..job import ExportJob

SCHEMA = "edgepress.saved/1"


class SavedFormat(Protocol):
    """What such a format defines."""

    def save(self, job: ExportJob, directory: Path) -> list[str]:
        """Write the model into the empty ``directory``; returns notes for the user."""

    def prove(self, job: ExportJob, directory: Path) -> float:
        """The largest difference of a weight, read back as the format's own reader does, from the
        checkpoint's.
        """


def save_form(plugin: SavedFormat, job: ExportJob, directory: Path, command: str, *, validate: bool) -> None:
    """The whole output in ``directory``, ``manifest.json`` last."""
    directory.mkdir()
    notes = plugin.save(job, directory)
    parity: dict[str, Any] = {
        "status": "skipped",
        "warning": "exported with --no-validate: this file was not read back",
    }
    if validate:
        parity = {
            "status": "passed",
            "float": {"max_abs_difference": plugin.prove(job, directory), "bound": 0.0},
        }
    stored = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    manifest = {
        "schema": SCHEMA,
        "tool": {"name": "edgepress", "version": __version__},
        "kind": job.source.anatomy.kind,
        "name": job.name,
        "described": job.described,
        "scheme": scheme_label(job),
        "command": command,
        "weights": {"params": parameters(job), "bytes": stored},
        "graph": {"notes": notes},
        "parity": parity,
    }
    skip = frozenset({MANIFEST})
    write_json(directory / MANIFEST, {**manifest, "files": hash_tree(directory, skip=skip)})
