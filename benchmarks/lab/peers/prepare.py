"""A subject in the form of every engine's variants, made once, so that a measurement only measures."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType

from ....storage import read_json, write_json
from .children import work
from .decoder_models import Subject, checkpoint, write_prompt
from .environments import trouble
from .workspace import Place

RECORD = "prepared.json"
TIMEOUT = 3600.0


def prepare(place: Place, chosen: Subject, engines: dict[str, ModuleType]) -> list[str]:
    """Make what is missing; returns a sentence for every variant that could not be made."""
    source = checkpoint(place, chosen)
    write_prompt(place, chosen, source)
    problems = []
    for engine, module in engines.items():
        for variant in (name for name, found in module.VARIANTS.items() if not found.stored_as):
            artifact = place.artifact(chosen.name, engine, variant)
            error = trouble(place, engine, module) or ""
            if not error and not (artifact / RECORD).is_file():
                error = _convert(place, chosen, source, engine, module, variant)
            if error:
                problems.append(f"{module.TITLE} {variant}: {error}")
            elif hasattr(module, "warm"):
                module.warm(artifact)
    return problems


def _convert(
    place: Place, chosen: Subject, source: Path, engine: str, module: ModuleType, variant: str
) -> str:
    """Convert into a directory beside the artifact's and rename it; returns the error, or nothing."""
    target = place.artifact(chosen.name, engine, variant)
    part = target.with_name(f".{target.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    job = {
        "do": "convert",
        "variant": variant,
        "checkpoint": str(source),
        "artifact": str(part),
        "group_size": chosen.group_size,
    }
    print(f"{chosen.name}: {module.TITLE} {variant}", file=sys.stderr, flush=True)
    done = work(place, engine, module, job, timeout=TIMEOUT)
    if done.error:
        write_json(target.with_name(f"{target.name}.error.json"), {"error": done.error})
        shutil.rmtree(part, ignore_errors=True)
        return done.error
    size = sum(file.stat().st_size for file in _kept(part))
    write_json(part / RECORD, {"bytes": size, "cpu_s": done.cpu_s, "peak_rss_bytes": done.peak_rss_bytes})
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    target.with_name(f"{target.name}.error.json").unlink(missing_ok=True)
    return ""


def _kept(artifact: Path) -> list[Path]:
    """The files that are the artifact; a bundle is one by itself, without what it was made from."""
    bundle = artifact / "bundle"
    return [file for file in (bundle if bundle.is_dir() else artifact).rglob("*") if file.is_file()]


def prepared(
    place: Place, subject: str, engine: str, module: ModuleType, variant: str
) -> tuple[Path, int, str]:
    """Directory and bytes of an artifact, and why there is none."""
    target = place.artifact(subject, engine, module.VARIANTS[variant].stored_as or variant)
    if (target / RECORD).is_file():
        return target, int(read_json(target / RECORD)["bytes"]), ""
    failed = target.with_name(f"{target.name}.error.json")
    return target, 0, str(read_json(failed)["error"]) if failed.is_file() else "not prepared"
