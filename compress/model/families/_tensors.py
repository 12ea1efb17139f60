"""Shapes and settings of a checkpoint under typed checks: what the family files derive an anatomy from; and
whether the head is that of a causal language model, and a matrix of its own.
"""

from collections.abc import Mapping
from typing import Any, Literal

from ....errors import CheckpointError
from ..anatomy import Shapes
from ..block_anatomy import Linear, Norm, Role

Config = Mapping[str, Any]


ANOTHER = "take config.json from the save that wrote the weights"
LARGEST_SIZE = 1 << 31
# What float32 holds without losing digits.
SMALLEST, LARGEST = 1e-37, 1e38


def integer(config: Config, key: str, default: int | None = None, *, largest: int = LARGEST_SIZE) -> int:
    """A positive whole number of the config, or ``default`` where the key is absent or null."""
    value = config.get(key)
    if value is None:
        value = default
    if type(value) is not int or not 0 < value <= largest:
        raise CheckpointError(
            f"config.json: {key} must be a positive whole number up to {largest}, not {value!r:.80}",
            fix=ANOTHER,
        )
    return value


def number(config: Config, key: str, default: float) -> float:
    """A positive number of the config, or ``default`` where the key is absent or null."""
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not SMALLEST < value < LARGEST:
        raise CheckpointError(
            f"config.json: {key} must be a positive number that float32 holds, not {value!r:.80}",
            fix=ANOTHER,
        )
    return float(value)


def flag(config: Config, key: str, default: bool) -> bool:
    """A switch of the config, or ``default`` where the key is absent or null."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CheckpointError(f"config.json: {key} must be true or false, not {value!r:.80}", fix=ANOTHER)
    return value


def text(config: Config, key: str, default: str) -> str:
    """A text of the config, or ``default`` where the key is absent or null."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise CheckpointError(f"config.json: {key} must be a text, not {value!r:.80}", fix=ANOTHER)
    return value


def shape_of(shapes: Shapes, name: str, *expected: int | None) -> tuple[int, ...]:
    """The shape of a tensor that must exist with ``len(expected)`` dimensions; None allows any size."""
    if name not in shapes:
        raise CheckpointError(
            f"the checkpoint has no tensor {name!r}",
            fix="check that model_type in config.json is right and that the download is complete",
        )
    shape = shapes[name]
    fits = len(shape) == len(expected) and all(
        size > 0 and want in (None, size) for size, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise CheckpointError(f"tensor {name!r} has shape {list(shape)}, expected [{wanted}]")
    return shape


def linear(
    shapes: Shapes, module: str, role: Role, *, inputs: int | None = None, outputs: int | None = None
) -> Linear:
    """The linear map ``module``; given sizes are enforced, and a bias is there when it is stored."""
    rows, columns = shape_of(shapes, f"{module}.weight", outputs, inputs)
    bias = f"{module}.bias" in shapes
    if bias:
        shape_of(shapes, f"{module}.bias", rows)
    return Linear(module, role, rows, columns, bias)


def fused(
    shapes: Shapes, module: str, role: Role, parts: Mapping[Role, int], inputs: int
) -> tuple[Linear, tuple[Linear, ...]]:
    """The linear map ``module`` that holds the outputs of several, and those by role and width."""
    whole = linear(shapes, module, role, inputs=inputs, outputs=sum(parts.values()))
    found = (Linear(f"{module}.{part}", part, width, inputs, whole.bias) for part, width in parts.items())
    return whole, tuple(found)


def norm(
    shapes: Shapes,
    module: str,
    kind: Literal["rms", "layer"],
    eps: float,
    size: int,
    offset: float = 0.0,
    *,
    bias: bool = True,
) -> Norm:
    """The normalization ``module`` over ``size`` channels; ``bias`` is a LayerNorm's."""
    shape_of(shapes, f"{module}.weight", size)
    bias = bias and kind == "layer"
    if bias:
        shape_of(shapes, f"{module}.bias", size)
    return Norm(module, kind, eps, offset, bias)


def heads_in(projection: Linear, head_dim: int) -> int:
    """How many heads of ``head_dim`` channels a projection makes."""
    heads, rest = divmod(projection.out_features, head_dim)
    if rest:
        raise CheckpointError(
            f"tensor {projection.name + '.weight'!r} has {projection.out_features} rows, "
            f"which do not divide into heads of {head_dim} channels"
        )
    return heads


def head_counts(q: Linear, k: Linear, head_dim: int) -> tuple[int, int]:
    """Query heads and key/value heads of ``head_dim`` channels that the projections make."""
    heads, kv_heads = heads_in(q, head_dim), heads_in(k, head_dim)
    if heads % kv_heads:
        raise CheckpointError(
            f"tensor {k.name + '.weight'!r} makes {kv_heads} key heads for {heads} query heads: no even share"
        )
    return heads, kv_heads


def check_blocks(
    shapes: Shapes,
    blocks_name: str,
    count: int,
    known: frozenset[str],
    buffers: frozenset[str] = frozenset(),
) -> None:
    """Every tensor below ``blocks_name`` must be of a block in ``range(count)`` and of a part in ``known``.

    ``known`` holds module names relative to the block, and ``buffers`` names of tensors that nobody reads. A
    part that the family does not know would be left out of the computation, and the model would be silently
    wrong.
    """
    for name in shapes:
        index, _, part = name.removeprefix(f"{blocks_name}.").partition(".")
        if not name.startswith(f"{blocks_name}.") or part.endswith("rotary_emb.inv_freq"):
            continue
        if not (index.isascii() and index.isdigit()) or int(index) >= count:
            raise CheckpointError(f"tensor {name!r} is outside the {count} blocks of config.json")
        module, _, kind = part.rpartition(".")
        if part in buffers:
            continue
        if module not in known or kind not in ("weight", "bias"):
            raise CheckpointError(
                f"tensor {name!r} is not a part that this model family has",
                fix="check that model_type in config.json is right",
            )


def check_architecture(config: Config) -> None:
    """Refuse a checkpoint that is no causal language model."""
    if config.get("use_bidirectional_attention"):
        raise CheckpointError("config.json sets use_bidirectional_attention: this model is no causal decoder")
    names = config.get("architectures") or []
    if names and not any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        raise CheckpointError(
            f"config.json names the architecture {', '.join(map(str, names))}, not a causal language model",
            why="its head is not a vocabulary head, and edgepress would leave it out",
            fix="give the …ForCausalLM checkpoint of this model",
        )


def is_tied(config: Config, shapes: Shapes, head: str, vocabulary: int, hidden: int) -> bool:
    """Whether the module ``head`` is the token embedding."""
    # A checkpoint may store the shared matrix twice: the flag decides, then what is stored.
    flag = config.get("tie_word_embeddings")
    if flag is False or (not flag and f"{head}.weight" in shapes):
        shape_of(shapes, f"{head}.weight", vocabulary, hidden)
        return False
    return True
