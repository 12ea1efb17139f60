"""OLMo 3: OLMo 2's form with a sliding window in three layers of four, and a rope for each kind of layer.

OLMo Team, OLMo 3, 2025.
"""

from ..anatomy import Anatomy, Shapes
from ._config import FULL, SLIDING, alternating_windows, head_size, rope_of_kind
from ._llama_like import llama_like
from ._llama_rows import ROWS
from ._tensors import Config, integer, number

DEFAULT_WINDOW, INTERVAL = 4096, 4
THETA = 500_000.0


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    windows = alternating_windows(config, integer(config, "sliding_window", DEFAULT_WINDOW), INTERVAL)
    theta, size = number(config, "rope_theta", THETA), head_size(config)
    local, whole = (rope_of_kind(config, kind, theta, size) for kind in (SLIDING, FULL))
    turned = [whole if window is None else local for window in windows]
    return llama_like(config, shapes, ROWS["olmo2"].form, windows=windows, ropes=turned)
