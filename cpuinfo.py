"""What the kernel says of the first processor, in ``/proc/cpuinfo``."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def first_processor(path: Path = CPUINFO) -> dict[str, str]:
    """The fields of the first processor in the file, by the kernel's names; empty where there is no file.

    x86 has ``model name`` and ``flags``, Arm ``CPU part`` and ``Features``. The path is for tests.
    """
    fields: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return fields
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip(), value.strip())
    return fields
