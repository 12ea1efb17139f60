"""The peak resident memory of the calling process, since it began to run its own program.

On Linux ``ru_maxrss`` survives ``exec`` and so begins at the size of whoever started the process;
``VmHWM`` belongs to the new address space and does not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import psutil


def peak_rss(proc: Path = Path("/proc")) -> tuple[int, str]:
    """Bytes, and the method that counted them. The path is for tests."""
    status = proc / "self/status"
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10, "VmHWM"
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset), "peak_wset"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10, "ru_maxrss"
