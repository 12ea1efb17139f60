"""What starts a kit on the machine that it was carried to, with that machine's Python and no network.

It is copied into the kit as ``kit.py`` and imports nothing of edgepress: it unpacks the wheels for this
Python beside itself, and runs the measurement with them.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

MODULE = "edgepress.benchmarks.speed.kit_run"


def main(here: Path) -> int:
    """Measure; the exit code of edgepress, or 4 where this machine is not the kit's."""
    plan = json.loads((here / "kit.json").read_text(encoding="utf-8"))
    version = ".".join(map(str, sys.version_info[:2]))
    wheels = plan["wheels"].get(version)
    if [platform.system(), platform.machine()] != plan["place"]:
        return refuse(f"this kit is for {plan['platform']}, this is {platform.system()} {platform.machine()}")
    if wheels is None:
        return refuse(f"this kit is for Python {', '.join(plan['wheels'])}, this is {version}")
    packages = here / f"packages-{version}"
    if not packages.exists() and (damaged := unpack(here / "wheels", wheels, packages)):
        return refuse(f"{damaged} is damaged: copy the kit again")
    own = {"PYTHONPATH": str(packages), "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}
    environment = {**os.environ, **own, "EDGEPRESS_CACHE": str(here / "cache")}
    return subprocess.call([sys.executable, "-m", MODULE, str(here)], env=environment)


def unpack(folder: Path, wheels: list[dict[str, Any]], into: Path) -> str:
    """Unpack the wheels; the name of the first that has other bytes than it should, or ""."""
    half = into.with_name(f"{into.name}.partial")
    for wheel in wheels:
        data = (folder / wheel["name"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != wheel["sha256"]:
            return str(wheel["name"])
        with zipfile.ZipFile(folder / wheel["name"]) as archive:
            archive.extractall(half)
    half.rename(into)
    return ""


def refuse(why: str) -> int:
    """Say why nothing is measured."""
    print(why, file=sys.stderr)
    return 4


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent))
