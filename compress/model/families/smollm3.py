"""SmolLM3: Llama's form, in which every fourth layer has no rope.

Bakouch et al., SmolLM3: smol, multilingual, long-context reasoner, 2025; Yang et al., Rope to Nope and Back
Again, 2025, arXiv 2501.18795.
"""

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._config import rope, windows_of_types
from ._llama_like import LlamaLike, llama_like
from ._tensors import ANOTHER, Config, integer

FAMILY = LlamaLike(max_positions=32_768)
THETA = 2_000_000.0
INTERVAL = 4


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    plain = {"rope_theta": THETA, **config}
    count = integer(config, "num_hidden_layers")
    turned = _turned(config, count)
    found = llama_like(plain, shapes, FAMILY)
    shared = rope(plain, found.blocks[0].attention.head_dim)
    window = config.get("sliding_window") if config.get("use_sliding_window") else None
    kinds = config.get("layer_types")
    if kinds is None:
        kinds = ["full_attention" if window is None or on else "sliding_attention" for on in turned]
    windows = windows_of_types(kinds, count, window)
    return llama_like(plain, shapes, FAMILY, windows=windows, ropes=[shared if on else None for on in turned])


def _turned(config: Config, count: int) -> list[bool]:
    """Whether each layer has a rope."""
    listed = config.get("no_rope_layers")
    if listed is None:
        interval = integer(config, "no_rope_layer_interval", INTERVAL)
        return [(index + 1) % interval != 0 for index in range(count)]
    if (
        not isinstance(listed, list)
        or len(listed) < count
        or any(type(one) not in (int, bool) for one in listed)
    ):
        raise CheckpointError(
            f"config.json: no_rope_layers must have a 0 or 1 for each of the {count} layers", fix=ANOTHER
        )
    return [bool(one) for one in listed[:count]]
