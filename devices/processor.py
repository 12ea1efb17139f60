"""The CPU of this machine: model, instructions that matter to int8 and bf16 arithmetic, cores, last-level
cache.
"""

import os
import platform
import subprocess
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from ..runtime.session.cpu_features import first_processor

# In the names of /proc/cpuinfo: x86 first, then Arm.
ISA = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_int8", "amx_bf16", "amx_tile"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "sme"),
)


class Processor(BaseModel):
    """What the kernel says of the CPU; None or empty where it does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    machine: str
    logical: int
    physical: int | None
    isa: tuple[str, ...]
    microcode: str | None
    last_level_cache_bytes: int | None
    virtualized: bool | None


def read_processor(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Processor:
    """Describe the CPU. The paths are for tests."""
    fields = first_processor(proc / "cpuinfo")
    flags = set((fields.get("flags") or fields.get("Features") or "").split()) or _apple_flags()
    return Processor(
        model=_model(fields, proc),
        machine=platform.machine(),
        logical=os.cpu_count() or 1,
        physical=psutil.cpu_count(logical=False),
        isa=tuple(name for name in ISA if name in flags),
        microcode=fields.get("microcode"),
        last_level_cache_bytes=_last_level_cache(sys / "devices/system/cpu/cpu0/cache"),
        virtualized="hypervisor" in flags if fields else None,
    )


def _model(fields: dict[str, str], proc: Path) -> str:
    if "model name" in fields:
        return fields["model name"]
    board = proc / "device-tree/model"
    if board.is_file():
        return board.read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
    if "CPU part" in fields:
        return f"Arm implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}"
    return sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def sysctl(name: str) -> str:
    """One value from macOS's sysctl; empty elsewhere."""
    if platform.system() != "Darwin":
        return ""
    answer = subprocess.run(
        ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=10, check=False
    )
    return answer.stdout.strip()


def _apple_flags() -> set[str]:
    features = {"FEAT_DotProd": "asimddp", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16", "FEAT_SME": "sme"}
    return {flag for feature, flag in features.items() if sysctl(f"hw.optional.arm.{feature}") == "1"}


def _last_level_cache(folder: Path) -> int | None:
    """Bytes of the largest cache that CPU 0 reaches."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes: list[int] = []
    for path in folder.glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        if text[:-1].isdecimal() and text[-1] in units:
            sizes.append(int(text[:-1]) * units[text[-1]])
    return max(sizes, default=None)
