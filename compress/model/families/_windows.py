"""Which layers see a sliding window, as Qwen configs say it: a switch, then layer types or a threshold."""

from __future__ import annotations

from ....errors import CheckpointError
from ._tensors import Config, integer

DEFAULT_WINDOW = 4096
DEFAULT_FULL_LAYERS = 28


def layer_windows(config: Config) -> list[int | None]:
    """The sliding window of each layer, None for full attention.

    Raises:
        CheckpointError: ``layer_types`` of the wrong length or with an unknown type.
    """
    count = integer(config, "num_hidden_layers")
    window = integer(config, "sliding_window", DEFAULT_WINDOW) if config.get("use_sliding_window") else None
    kinds = config.get("layer_types")
    if kinds is None:
        full = config.get("max_window_layers", DEFAULT_FULL_LAYERS)
        if type(full) is not int:
            raise CheckpointError(f"config.json: max_window_layers must be a whole number, not {full!r}")
        return [window if index >= full else None for index in range(count)]
    return windows_of_types(kinds, count, window)


def windows_of_types(kinds: object, count: int, window: int | None) -> list[int | None]:
    """The sliding window of each of ``count`` layers, from the list ``layer_types`` of a config.

    Raises:
        CheckpointError: a list of the wrong length or with an unknown type.
    """
    if not isinstance(kinds, list) or len(kinds) != count:
        raise CheckpointError(f"config.json: layer_types must list a type for each of the {count} layers")
    known = {"full_attention": None, "sliding_attention": window}
    if strange := [kind for kind in kinds if not isinstance(kind, str) or kind not in known]:
        raise CheckpointError(
            f"config.json: unknown layer type {strange[0]!r}", fix=f"known: {', '.join(known)}"
        )
    return [known[kind] for kind in kinds]
