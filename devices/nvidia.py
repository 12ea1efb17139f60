"""NVIDIA GPUs as ``nvidia-smi`` reports them. No GPU or no tool is an empty list; no CUDA library is
loaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

_FIELDS = {
    "name": "name",
    "memory_mib": "memory.total",
    "driver": "driver_version",
    "power_limit_w": "power.limit",
    "ecc": "ecc.mode.current",
    "mig": "mig.mode.current",
}
_ABSENT = ("", "N/A")


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


def first_gpu(gpus: Sequence[Gpu]) -> Gpu | None:
    """The one that CUDA's device 0 is, or None where that may be one of several kinds: by itself CUDA counts
    the fastest first, and ``nvidia-smi`` by their places on the bus.
    """
    if len({gpu.name for gpu in gpus}) < 2:
        return next(iter(gpus), None)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
    if os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" or not visible.isdigit():
        return None
    return next(iter(gpus[int(visible) :]), None)


def parse_gpus(text: str) -> list[Gpu]:
    """GPUs from ``nvidia-smi``'s CSV without header; lines of another shape are skipped. What it cannot say
    of a GPU it says in brackets: ``[N/A]``, ``[Not Supported]``, ``[Unknown Error]``.
    """
    gpus: list[Gpu] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(_FIELDS):
            values = {
                field: None if cell in _ABSENT or (cell.startswith("[") and field != "name") else cell
                for field, cell in zip(_FIELDS, cells, strict=True)
            }
            gpus.append(Gpu.model_validate(values))
    return gpus
