"""How a family's config names the sizes that pruning changes; a family file may say its own as ``SIZES``.

----

Rotary settings of a config, in either of the two forms that checkpoints carry.

Since transformers 5 there is ``rope_parameters`` with everything in it; before, ``rope_theta`` and
``rope_scaling`` lay at the top. Su et al., RoFormer, 2021, arXiv 2104.09864.

----

Which layers see a sliding window, as Qwen configs say it: a switch, then layer types or a threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....errors import CheckpointError
from ..block_anatomy import Rope
from ._tensors import Config, integer, number, text


@dataclass(frozen=True)
class SizeKeys:
    """Config keys; the defaults are Llama's.

    Attributes:
        ffn: of the width of an MLP; None where transformers takes four times the hidden size.
        heads: of query heads, key/value heads and channels of a head, of an encoder–decoder's attention to
            the encoder too; None where transformers derives the size of a head from the hidden size, so that
            a config cannot say that heads were removed.
        twin: ``model_type`` and architecture of the same network without biases, where transformers refuses
            hidden sizes under the family's own name that are no multiple of the heads.
        experts: how the number of experts may be called: all that are there say it.
        decoder_layers: of an encoder–decoder, whose ``layers`` are the encoder's; ``decoder_ffn`` and
            ``decoder_query_heads`` where these have keys of their own.
        hidden, query_heads, positions: of the whole model, which pruning may not be able to change.
    """

    ffn: str | None = "intermediate_size"
    layers: str = "num_hidden_layers"
    heads: tuple[str, str, str] | None = ("num_attention_heads", "num_key_value_heads", "head_dim")
    twin: tuple[str, str] | None = None
    experts: tuple[str, ...] = ()
    decoder_layers: str | None = None
    decoder_ffn: str | None = None
    decoder_query_heads: str | None = None
    hidden: str = "hidden_size"
    query_heads: str = "num_attention_heads"
    positions: str = "max_position_embeddings"


SLIDING, FULL = "sliding_attention", "full_attention"
DEFAULT_THETA = 10_000.0
MAX_POSITIONS = 1 << 24
TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
# These scale from the length of the pretraining, which is the model's own where the config has no other.
_NEED_ORIGINAL_LENGTH = ("llama3", "yarn", "longrope")


def head_size(config: Config) -> int:
    """Channels of a head: what the config says, or the share of a head in the hidden size."""
    share = integer(config, "hidden_size") // integer(config, "num_attention_heads")
    return integer(config, "head_dim", share or None)


def rope(config: Config, head_dim: int) -> Rope:
    """The rotary embedding of a decoder whose heads have ``head_dim`` channels.

    ``scaling`` of the result always has ``rope_type``, and is empty for plain rope.
    """
    parameters = _parameters(config)
    merged = {**config, **parameters}
    theta = number(merged, "rope_theta", DEFAULT_THETA)
    rotated = int(head_dim * number(merged, "partial_rotary_factor", 1.0))
    if rotated % 2 or not 0 < rotated <= head_dim:
        raise CheckpointError(
            f"config.json: rope turns {rotated} of {head_dim} channels; it needs pairs within a head"
        )
    kind = text(parameters, "rope_type", text(parameters, "type", "default"))
    if kind not in TYPES:
        raise CheckpointError(f"config.json: unknown rope_type {kind!r}", fix=f"known: {', '.join(TYPES)}")
    if kind == "default":
        return Rope(theta, rotated)
    own = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    scaling = {"rope_type": kind, **{key: value for key, value in parameters.items() if key not in own}}
    _check_scaling(kind, scaling, rotated)
    if kind in _NEED_ORIGINAL_LENGTH and "original_max_position_embeddings" not in scaling:
        length = config.get("original_max_position_embeddings", config.get("max_position_embeddings"))
        scaling["original_max_position_embeddings"] = length
    if kind == "longrope":
        longest(Rope(theta, rotated, scaling))  # a whole number
        whole = integer(config, "max_position_embeddings", scaling["original_max_position_embeddings"])
        scaling.setdefault("factor", whole / scaling["original_max_position_embeddings"])
    return Rope(theta, rotated, scaling)


def rope_of_kind(config: Config, kind: str, theta: float, head_dim: int) -> Rope:
    """The rope of the layers of a ``kind`` where each has its own in ``rope_parameters``; ``theta`` is for
    where that is silent. Scaling of the older form is of the layers with full attention.
    """
    given = config.get("rope_parameters")
    own: Any = given.get(kind) if isinstance(given, dict) else None
    plain = {name: value for name, value in config.items() if name not in ("rope_parameters", "rope_theta")}
    if kind == SLIDING:
        plain.pop("rope_scaling", None)
    return rope({**plain, "rope_theta": theta, "rope_parameters": own or {}}, head_dim)


def longest(rope: Rope) -> int:
    """Positions that the one table of angles of ``rope`` serves: longrope has two, the second of which begins
    after the length of the pretraining.
    """
    if rope.scaling.get("rope_type") != "longrope":
        return MAX_POSITIONS
    return integer(rope.scaling, "original_max_position_embeddings")


# Without these transformers has no frequencies.
_NEEDED: dict[str, tuple[str, ...]] = {
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}


def _check_scaling(kind: str, scaling: Mapping[str, Any], rotated: int) -> None:
    """Refuse numbers that give angles that are none."""
    for key in _NEEDED.get(kind, ("factor",)):
        if scaling.get(key) is None:
            raise CheckpointError(f"config.json: rope of type {kind!r} needs {key}")
    for key, value in scaling.items():
        each = value if isinstance(value, list) else [value]
        if key == "original_max_position_embeddings" and value is not None:
            integer(scaling, key)
        elif isinstance(value, list) and len(value) != rotated // 2:
            raise CheckpointError(f"config.json: {key} of rope has {len(value)} numbers for {rotated // 2}")
        elif key.startswith("mscale") and value == 0:
            continue
        elif key != "rope_type" and not isinstance(value, bool | None):
            for item in each:
                number({key: item}, key, 1.0)
    low, high = scaling.get("low_freq_factor", 0), scaling.get("high_freq_factor", 1)
    if kind == "llama3" and low >= high:
        raise CheckpointError(
            f"config.json: low_freq_factor {low} of rope is not below high_freq_factor {high}"
        )


def _parameters(config: Config) -> dict[str, Any]:
    for key in ("rope_parameters", "rope_scaling"):
        value = config.get(key)
        if not value:
            continue
        if not isinstance(value, dict) or any(isinstance(item, dict) for item in value.values()):
            raise CheckpointError(f"config.json: {key} must be one table for all layers, not {value!r}")
        return value
    return {}


DEFAULT_WINDOW = 4096
DEFAULT_FULL_LAYERS = 28


def layer_windows(config: Config) -> list[int | None]:
    """The sliding window of each layer, None for full attention."""
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
    """The sliding window of each of ``count`` layers, from the list ``layer_types`` of a config."""
    if not isinstance(kinds, list) or len(kinds) != count:
        raise CheckpointError(f"config.json: layer_types must list a type for each of the {count} layers")
    known = {FULL: None, SLIDING: window}
    if strange := [kind for kind in kinds if not isinstance(kind, str) or kind not in known]:
        raise CheckpointError(
            f"config.json: unknown layer type {strange[0]!r}", fix=f"known: {', '.join(known)}"
        )
    return [known[kind] for kind in kinds]


def alternating_windows(config: Config, window: int | None, interval: int) -> list[int | None]:
    """The sliding window of each layer where all have ``window`` but every so many-th, as ``layer_types`` or
    ``sliding_window_pattern`` of the config say, or by default each ``interval``-th.
    """
    count = integer(config, "num_hidden_layers")
    kinds = config.get("layer_types")
    if kinds is None:
        interval = integer(config, "sliding_window_pattern", interval)
        kinds = [SLIDING if window is not None and (index + 1) % interval else FULL for index in range(count)]
    return windows_of_types(kinds, count, window)
