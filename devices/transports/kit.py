"""A kit: one folder with bundle, packages and a start file, for a machine that no link reaches."""

import shutil
from pathlib import Path
from typing import Any

from ...errors import InputError, MissingDependency, OutputExists
from ...files.staging import Staging
from ...files.storage import write_json
from ...runtime.bundle.bundle import Bundle
from ...terminal.progress import Progress
from . import wheels
from .fitness import NAMED, Platform
from .sending import bundle_files, require_operators
from .ssh import PYTHONS

SCHEMA = "edgepress.kit/1"
VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))
START = {"Windows": "start.cmd"}
_SHELL = f"""#!/bin/sh
# Measures the bundle beside this file on this machine, without a network, and writes record.jsonl here.
cd "$(dirname "$0")" || exit 1
for python in {" ".join(PYTHONS)}; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    exec "$python" -I kit.py
  fi
done
echo "there is no Python 3.11 or newer here" >&2
exit 4
"""
_CMD = """@echo off\r
rem Measures the bundle beside this file on this machine, without a network, and writes record.jsonl here.\r
cd /d "%~dp0"\r
where py >nul 2>nul\r
if %errorlevel%==0 (py -3 -I kit.py) else (python -I kit.py)\r
"""


def make_kit(bundle: Path, output: Path, name: str, plan: dict[str, Any], progress: Progress) -> list[str]:
    """Write the folder ``output`` for the platform ``name``; ``plan`` is what is measured.

    Returns:
        The versions of Python that it serves.
    """
    opened = Bundle.open(bundle)
    places = [Platform.named(name, version) for version in VERSIONS]
    require_operators([opened], places[0], name)
    if output.exists():
        raise OutputExists(f"{output} is already there", fix="choose another output, or delete it")
    needed = _wheels(places, progress)
    with Staging(output) as stage:
        _write(stage.result, opened, needed, name, plan)
        stage.publish()
    return list(needed)


def _wheels(places: list[Platform], progress: Progress) -> dict[str, list[wheels.Wheel]]:
    """By version of Python, those that there are."""
    found: dict[str, list[wheels.Wheel]] = {}
    failure: MissingDependency | None = None
    own = wheels.own_wheel(places[0])
    with progress.task("packages", len(places)) as task:
        for place in places:
            version = ".".join(map(str, place.python))
            try:
                found[version] = [*wheels.packages(place), own]
            except MissingDependency as error:
                failure = error
            task.advance(detail=version)
    if not found:
        raise failure or InputError("there are no versions of Python")
    return found


def _write(
    root: Path, bundle: Bundle, needed: dict[str, list[wheels.Wheel]], name: str, plan: dict[str, Any]
) -> None:
    (root / "wheels").mkdir(parents=True)
    (root / "bundle").mkdir()
    for file, _ in bundle_files(bundle):
        (root / "bundle" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / file, root / "bundle" / file)
    for wheel in {wheel.name: wheel for group in needed.values() for wheel in group}.values():
        shutil.copyfile(wheel.file(), root / "wheels" / wheel.name)
    shutil.copyfile(Path(__file__).with_name("kit_start.py"), root / "kit.py")
    system, machine = NAMED[name]
    start = root / START.get(system, "start.sh")
    start.write_text(_CMD if system == "Windows" else _SHELL, encoding="ascii", newline="")
    start.chmod(0o755)
    listed = {
        version: [{"name": wheel.name, "sha256": wheel.sha256} for wheel in group]
        for version, group in needed.items()
    }
    plan = {**plan, "manifest_sha256": bundle.manifest_sha256}
    content = {"schema": SCHEMA, "platform": name, "place": [system, machine], "wheels": listed, **plan}
    write_json(root / "kit.json", content)
