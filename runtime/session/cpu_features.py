"""The CPU as the runtime sees it: whether its 8-bit products are exact."""

from __future__ import annotations

import platform
from pathlib import Path

from ...cpuinfo import CPUINFO, first_processor

_X86 = ("x86_64", "amd64", "i386", "i686")
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def products_saturate(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the fast kernel cannot be trusted here: an x86 CPU without VNNI, or one that does not say."""
    # On x86, ONNX Runtime's fast uint8 × int8 kernel adds pairs of products in 16 bits, which saturates,
    # unless the CPU has VNNI. ``session.x64quantprecision`` makes it exact everywhere for 40 % of the speed.
    if platform.machine().lower() not in _X86:
        return False
    flags = first_processor(cpuinfo).get("flags")
    return flags is None or _VNNI.isdisjoint(flags.split())
