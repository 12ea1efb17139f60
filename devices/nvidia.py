"""NVIDIA GPUs as ``nvidia-smi`` reports them. No GPU or no tool is an empty list; no CUDA library is
loaded.
"""

from __future__ import annotations

import shutil
import subprocess

from pydantic import BaseModel, ConfigDict

_FIELDS = {
    "name": "name",
    "memory_mib": "memory.total",
    "driver": "driver_version",
    "power_limit_w": "power.limit",
    "ecc": "ecc.mode.current",
    "mig": "mig.mode.current",
}
_ABSENT = ("", "[N/A]", "N/A", "[Not Supported]")


class Gpu(BaseModel):
    """One GPU. The power limit belongs to its identity: the same name spans a factor of three on laptops."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    memory_mib: float | None
    driver: str | None
    power_limit_w: float | None
    ecc: str | None
    mig: str | None


def read_gpus(executable: str = "nvidia-smi") -> list[Gpu]:
    """The GPUs of this machine, in the driver's order; empty when ``nvidia-smi`` is absent or fails."""
    program = shutil.which(executable)
    if program is None:
        return []
    query = ["--query-gpu=" + ",".join(_FIELDS.values()), "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run([program, *query], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(answer.stdout) if answer.returncode == 0 else []


def parse_gpus(text: str) -> list[Gpu]:
    """GPUs from ``nvidia-smi``'s CSV without header; lines of another shape are skipped."""
    gpus: list[Gpu] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(_FIELDS):
            values = {
                field: None if cell in _ABSENT else cell for field, cell in zip(_FIELDS, cells, strict=True)
            }
            gpus.append(Gpu.model_validate(values))
    return gpus
