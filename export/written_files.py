"""What every export has beside what its format writes: the files that go with the model, the card, the bill
of materials, and the manifest with the hash of every file.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..compress.bill_of_materials import BOM, EXPORT_TOOLS, write_bill_of_materials
from ..compress.model.checkpoint.policy import LICENSES
from ..compress.model_card import CARD
from ..files.hashed_tree import hash_tree
from ..files.storage import write_atomic, write_json
from ..runtime.bundle.directory import MANIFEST
from .bundle_manifest import manifest_of, saved_manifest, scheme_label
from .card import card_of, saved_card
from .format import ExportFormat
from .job import ExportJob

# The same as tokenizer.json in another form: a bundle carries it once.
_REDUNDANT = frozenset(
    {
        *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "added_tokens.json"),
        *("source.spm", "target.spm", "target_vocab.json"),
    }
)


def copy_companions(job: ExportJob, bundle: Path) -> None:
    """Tokenizer, licences and config of the model, for a bundle."""
    reader = job.source.reader
    names = reader.companions()
    redundant = _REDUNDANT if "tokenizer.json" in names else frozenset()
    for name in names:
        if name not in redundant:
            (bundle / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(reader.file(name), bundle / name)
    config = {key: value for key, value in reader.config.items() if key != "quantization_config"}
    write_json(bundle / "config.json", config)


def copy_licenses(job: ExportJob, directory: Path) -> None:
    """What the licence of a model asks to be kept with it."""
    for path in sorted(path for pattern in LICENSES for path in job.path.glob(pattern) if path.is_file()):
        shutil.copyfile(job.source.reader.file(path.name), directory / path.name)


def describe(
    plugin: ExportFormat[Any],
    job: ExportJob,
    directory: Path,
    sections: dict[str, Any],
    parity: dict[str, Any],
    command: str,
) -> None:
    """Write the manifest, with the hash of every other file; card and bill of materials first."""
    stored = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    opened_by = plugin.opened_by(job)
    if opened_by is None:
        manifest = manifest_of(job, sections, parity)
        card = card_of(manifest, job.made, command, stored)
    else:
        manifest = saved_manifest(job, sections, parity, stored, command)
        card = saved_card(manifest, job.made, opened_by)
    write_atomic(directory / CARD, card.encode())
    files = hash_tree(directory, skip=frozenset({MANIFEST, BOM}))
    text, origin = parity.get("text"), {"fingerprint": job.source.reader.fingerprint()} | job.made["source"]
    files[BOM] = write_bill_of_materials(
        directory,
        files,
        made=job.made | {"source": origin},
        anatomy=job.source.anatomy,
        architectures=job.source.reader.config.get("architectures"),
        scheme=scheme_label(job),
        tools=EXPORT_TOOLS,
        proof_text=text.get("sha256") if isinstance(text, dict) else None,
    )
    write_json(directory / MANIFEST, {**manifest, "files": files})
