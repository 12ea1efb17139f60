"""This machine, as far as it decides a measurement: CPU, memory, GPUs, limits of the container, ONNX Runtime.

Nothing personal is read: no host name, no user, no path.

NVIDIA GPUs as ``nvidia-smi`` reports them. No GPU or no tool is an empty list; no CUDA library is
loaded.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field

from ..files.storage import sha256_json
from ..runtime.session.threads import cpu_quota, memory_limit, read_line, thread_budget
from .processor import Processor, read_processor, sysctl

_FIELDS = {
    "name": "name",
    "memory_mib": "memory.total",
    "driver": "driver_version",
    "power_limit_w": "power.limit",
    "ecc": "ecc.mode.current",
    "mig": "mig.mode.current",
}
_ABSENT = ("", "N/A")
# One import name, several distributions: whichever was installed last owns the files.
ONNXRUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)


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


class Memory(BaseModel):
    """Main memory in bytes; ``limit`` is the control group's, where there is one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total: int
    available: int
    limit: int | None


class Limits(BaseModel):
    """What this process may use of the machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    affinity: int | None = Field(description="logical CPUs this process may run on; None where unknown")
    cpu_quota: float | None = Field(
        description="CPUs' worth of time that the control groups grant; None is no limit"
    )
    threads: int = Field(description="the thread budget that follows")
    container: bool


class OnnxRuntime(BaseModel):
    """The installed ONNX Runtime."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    distributions: tuple[str, ...]
    providers: tuple[str, ...]


class Machine(BaseModel):
    """The probe's result. ``fingerprint`` is a hash of the part that does not change from run to run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    os: str
    kernel: str
    libc: str
    python: str
    cpu: Processor
    memory: Memory
    gpus: tuple[Gpu, ...]
    limits: Limits
    onnxruntime: OnnxRuntime | None
    fingerprint: str
    emulated: bool = Field(False, description="another processor pretends to be this one: times mean nothing")


def probe(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Machine:
    """Describe this machine. The paths are for tests."""
    cpu, memory, gpus = read_processor(proc, sys), read_memory(proc, sys), tuple(read_gpus())
    stable = {
        "os": platform.system(),
        "cpu": cpu.model_dump(exclude={"microcode"}),
        "memory": memory.total,
        "gpus": [gpu.model_dump(exclude={"driver"}) for gpu in gpus],
    }
    return Machine(
        os=_system_name(),
        kernel=platform.release(),
        libc=" ".join(platform.libc_ver()).strip(),
        python=platform.python_version(),
        cpu=cpu,
        memory=memory,
        gpus=gpus,
        limits=read_limits(proc, sys),
        onnxruntime=read_onnxruntime(),
        fingerprint=sha256_json(stable),
        emulated=is_emulated(proc),
    )


def is_emulated(proc: Path = Path("/proc")) -> bool:
    """Whether qemu's user mode or Apple's Rosetta runs this process. The path is for tests."""
    if sysctl("sysctl.proc_translated") == "1":
        return True
    # qemu answers uname for the processor that it plays; these files are the real kernel's.
    kernel = read_line(proc / "sys/kernel/arch") or platform.machine()
    return (read_line(proc / "self/comm") or "").startswith("qemu-") or _family(kernel) != _family(
        platform.machine()
    )


def _family(machine: str) -> str:
    """Names of machines that run each other's programs are one: a 32-bit system on a 64-bit kernel is none
    that pretends.
    """
    name = machine.lower()
    if name in ("x86_64", "amd64") or re.fullmatch("i[3-6]86", name):
        return "x86"
    return "arm" if name.startswith(("arm", "aarch64")) else name


def read_memory(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Memory:
    """Memory of the machine, narrowed to what the control group allows."""
    machine, limit = psutil.virtual_memory(), memory_limit(proc, sys)
    if limit is not None and limit >= machine.total:
        limit = None
    available = machine.available if limit is None else min(machine.available, limit)
    return Memory(total=machine.total, available=available, limit=limit)


def read_limits(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Limits:
    """Affinity, quota and the thread budget that follows from them."""
    quota = cpu_quota(proc, sys)
    return Limits(
        affinity=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        cpu_quota=quota if quota != float("inf") else None,
        threads=thread_budget(proc=proc, sys=sys),
        container=_in_container(proc),
    )


def installed(*distributions: str) -> dict[str, str]:
    """The versions of those distributions that are installed, from their metadata: nothing is imported."""
    found: dict[str, str] = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_onnxruntime() -> OnnxRuntime | None:
    """The installed ONNX Runtime and its providers; None when it is not installed or does not import."""
    if find_spec("onnxruntime") is None:
        return None
    try:
        import onnxruntime

        providers = tuple(onnxruntime.get_available_providers())
        version = str(onnxruntime.__version__)
    except (ImportError, AttributeError):
        return None
    return OnnxRuntime(version=version, distributions=tuple(installed(*ONNXRUNTIMES)), providers=providers)


def _system_name() -> str:
    if platform.system() != "Linux":
        return f"{platform.system()} {platform.release()}"
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "Linux"


def _in_container(proc: Path) -> bool:
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() or "container" in os.environ:
        return True
    try:
        groups: Any = (proc / "1/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(mark in groups for mark in ("docker", "kubepods", "containerd", "lxc", "podman"))
