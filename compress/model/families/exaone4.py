"""EXAONE 4: OLMo 2's form with q and k normalized per head; where some layers see a sliding window, the
others have no rope.

LG AI Research, EXAONE 4.0: Unified Large Language Models, 2025, arXiv 2507.11407.
"""

from ..anatomy import Anatomy, Shapes
from ._config import alternating_windows, head_size, rope
from ._llama_like import BEHIND, LlamaLike, llama_like
from ._tensors import Config, integer

FAMILY = LlamaLike(max_positions=2048, eps=1e-5, norms=BEHIND, order="behind", qk_norm="head")
DEFAULT_WINDOW = 4096
INTERVAL = 4


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    if "sliding_window" in config and config["sliding_window"] is None:
        return llama_like(config, shapes, FAMILY)
    windows = alternating_windows(config, integer(config, "sliding_window", DEFAULT_WINDOW), INTERVAL)
    turned = rope(config, head_size(config))
    ropes = [None if window is None else turned for window in windows]
    return llama_like(config, shapes, FAMILY, windows=windows, ropes=ropes)
