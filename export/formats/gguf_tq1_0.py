"""The ``gguf_tq1_0`` format: the ``gguf`` format with ternary weights in 1.6875 bits, five to a byte: smaller
to store than ``TQ2_0``, and slower to compute with.
"""

from ..format import ExportFormat, Prepared
from .gguf import GgufFormat

FORMAT: ExportFormat[Prepared] = GgufFormat("TQ1_0")
