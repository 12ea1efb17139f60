"""OLMo 3: OLMo 2's form with a sliding window in three layers of four, and a rope for each kind of layer.

OLMo Team, OLMo 3, 2025.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._config import FULL, SLIDING, alternating_windows, rope_of_kind
from ._llama_like import llama_like
from ._tensors import Config, integer, number
from .olmo2 import FAMILY

DEFAULT_WINDOW, INTERVAL = 4096, 4
THETA = 500_000.0


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    windows = alternating_windows(config, integer(config, "sliding_window", DEFAULT_WINDOW), INTERVAL)
    head_dim = integer(config, "hidden_size") // integer(config, "num_attention_heads") or None
    head_dim, theta = integer(config, "head_dim", head_dim), number(config, "rope_theta", THETA)
    local, whole = (rope_of_kind(config, kind, theta, head_dim) for kind in (SLIDING, FULL))
    turned = [whole if window is None else local for window in windows]
    return llama_like(config, shapes, FAMILY, windows=windows, ropes=turned)
