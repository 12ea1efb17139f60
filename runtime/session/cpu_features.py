"""The CPU as the runtime sees it: whether its 8-bit products are exact."""

import platform
from pathlib import Path

from ..bundle.graph_file import PROBE

CPUINFO = Path("/proc/cpuinfo")
# A graph that asks does so in its first nodes.
_FIRST_BYTES = 1 << 16
_X86 = ("x86_64", "amd64", "i386", "i686")
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


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


def products_saturate(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the fast kernel cannot be trusted here: an x86 CPU without VNNI, or one that does not say."""
    # On x86, ONNX Runtime's fast uint8 × int8 kernel adds pairs of products in 16 bits, which saturates,
    # unless the CPU has VNNI. ``session.x64quantprecision`` makes it exact everywhere for 40 % of the speed.
    if platform.machine().lower() not in _X86:
        return False
    flags = first_processor(cpuinfo).get("flags")
    return flags is None or _VNNI.isdisjoint(flags.split())


def asks_itself(graph: Path) -> bool:
    """Whether ``graph`` itself finds out if products saturate; standard graphs did not always."""
    if not graph.is_file():
        return False
    with graph.open("rb") as stream:
        return PROBE.encode() in stream.read(_FIRST_BYTES)
