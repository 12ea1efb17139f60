"""This machine, as far as it decides a measurement: CPU, memory, GPUs, limits of the container, ONNX Runtime.

Nothing personal is read: no host name, no user, no path.
"""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field

from ..files.storage import sha256_json
from ..runtime.session.threads import cpu_quota, memory_limit, read_line, thread_budget
from .nvidia import Gpu, read_gpus
from .processor import Processor, read_processor, sysctl

# One import name, several distributions: whichever was installed last owns the files.
ONNXRUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)


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
