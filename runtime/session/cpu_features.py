"""The CPU as the runtime sees it: whether its 8-bit products are exact, and which kind of CPU it is."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from ...storage import sha256_json

CPUINFO = Path("/proc/cpuinfo")
_X86 = ("x86_64", "amd64", "i386", "i686")
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def products_saturate(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the fast kernel cannot be trusted here: an x86 CPU without VNNI, or one that does not say."""
    # On x86, ONNX Runtime's fast uint8 × int8 kernel adds pairs of products in 16 bits, which saturates,
    # unless the CPU has VNNI. ``session.x64quantprecision`` makes it exact everywhere for 40 % of the speed.
    if platform.machine().lower() not in _X86:
        return False
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return flags is None or _VNNI.isdisjoint(flags[1].split())


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
