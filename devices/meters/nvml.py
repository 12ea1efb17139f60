"""NVML: the total energy counter of an NVIDIA GPU's board, Volta and later, read through nvidia-ml-py.

The counter moves about every 100 ms. It belongs to the whole board, so that a slice of one (MIG) has none;
and where several GPUs are at hand the one that CUDA takes must be certain.
"""

import os
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..energy import Counter, Meter, MeterLost, NoMeter

DEVICE = "cuda"
UPDATE_S = 0.1
MISSING = NoMeter(
    "the GPU's energy counter is read with nvidia-ml-py, which is not installed",
    'pip install "edgepress[energy]"',
)
WHICH = NoMeter(
    "several GPUs are here, and which of them CUDA counts first is not certain",
    "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or CUDA_VISIBLE_DEVICES to the UUID that nvidia-smi -L prints",
)
SLICE = NoMeter("the GPU's energy counter is of the whole board, and MIG shares it with other slices")


def find() -> Meter | NoMeter | None:
    """The board that CUDA's device 0 is on."""
    if find_spec("pynvml") is None:
        return MISSING
    nvml = import_module("pynvml")
    try:
        nvml.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
        if visible.startswith("MIG-"):
            return SLICE
        handle = _board(nvml, visible)
        if handle is None:
            return WHICH
        if _is_sliced(nvml, handle):
            return SLICE
        counter = Counter("gpu", partial(_microjoules, nvml, handle))
        counter.read()
    except (nvml.NVMLError, MeterLost) as error:
        return NoMeter(f"the GPU's energy counter cannot be read: {error.__cause__ or error}")
    return Meter("nvml_counter", (counter,), (), UPDATE_S)


def _board(nvml: Any, visible: str) -> Any:
    """NVML's handle of CUDA's device 0, the first ``visible``; None where that may be any of several."""
    if visible.startswith("GPU-"):
        return nvml.nvmlDeviceGetHandleByUUID(visible)
    certain = nvml.nvmlDeviceGetCount() == 1 or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not certain or not (visible.isdigit() or not visible):
        return None
    return nvml.nvmlDeviceGetHandleByIndex(int(visible or 0))


def _is_sliced(nvml: Any, handle: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:  # boards that know no MIG
        return False
    return bool(current)


def _microjoules(nvml: Any, handle: Any) -> int:
    try:
        return 1000 * int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    except nvml.NVMLError as error:
        raise MeterLost(f"the GPU's energy counter cannot be read: {error}") from error
