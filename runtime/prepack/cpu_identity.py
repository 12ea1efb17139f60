"""What tells one kind of CPU from another: a hash that changes whenever other kernels might be chosen."""

from __future__ import annotations

import platform
from pathlib import Path

from ...storage import sha256_json

CPUINFO = Path("/proc/cpuinfo")
# x86 first, then Arm. Not the microcode, the clock and what else changes on one machine.
_TELLING = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features"),
)


def cpu_identity(cpuinfo: Path = CPUINFO) -> str:
    """A hash of model and instruction sets; ``cpuinfo`` is for tests. Unequal cores all count."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return sha256_json([platform.machine(), platform.processor(), _apple_chip()])
    lines = {tuple(part.strip() for part in line.split(":", 1)) for line in text.splitlines() if ":" in line}
    return sha256_json([platform.machine(), *sorted(line for line in lines if line[0] in _TELLING)])


def _apple_chip() -> str:
    """Its name: every Apple chip is the same ``arm`` to :mod:`platform`."""
    if platform.system() != "Darwin":
        return ""
    import subprocess  # only here: it costs a start

    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
