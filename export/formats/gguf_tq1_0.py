"""The ``gguf_tq1_0`` format: the ``gguf`` format with ternary weights in 1.6875 bits, five to a byte: smaller
to store than ``TQ2_0``, and slower to compute with.
"""

from __future__ import annotations

from pathlib import Path

from ..job import ExportJob
from .gguf import prove, save_as

__all__ = ["prove", "save"]


def save(job: ExportJob, directory: Path) -> list[str]:
    """Write ``NAME.gguf``; see :func:`.gguf.save_as`."""
    return save_as(job, directory, "TQ1_0")
