"""What a GGUF file says of positions beyond their base: put into the config where it has a place for it, else
refused, since a model with other positions answers without an error.

Llama 3.1 and later divide the angle of each pair of channels by a number of their own: llama.cpp's converter
works these out of four settings and stores the numbers alone, as ``rope_freqs.weight``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .....errors import CheckpointError
from ...anatomy import Anatomy
from ...gguf.configs import YARN_LOGARITHM
from ...gguf.families import ARCHITECTURES

DIVISORS = "rope_freqs.weight"
_TABLES = ("rope_factors_long.weight", "rope_factors_short.weight")
# Of every Llama from 3.1 on; they differ in the factor.
_LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
# What a file may say beside factor, length and the two betas, where that changes nothing.
_OF_YARN = {
    "attn_factor": (1.0,),
    "yarn_attn_factor": (1.0,),
    "yarn_ext_factor": (1.0, -1.0),
}
_AS_STORED = 1e-5  # of a number in float32
_WAY_OUT = "take the model's safetensors checkpoint"


@dataclass(frozen=True)
class GgufPositions:
    """None where a file does not say so: how many channels of a head are turned, the ``base`` of the angles,
    and the kind of ``stretching`` for longer texts. ``divisors`` is the number of those that it divides
    angles by.
    """

    turned: int | None = None
    base: float | None = None
    stretching: str | None = None
    divisors: int = 0


def positions_of(
    architecture: str, settings: Mapping[str, object], names: Mapping[bytes, int]
) -> GgufPositions:
    """Those of a file whose tensors have these ``names``, with the sizes of each; ``settings`` are its
    ``architecture``'s own.
    """
    base, turned = settings.get("rope.freq_base"), settings.get("rope.dimension_count")
    longrope = any(name.encode() in names for name in _TABLES)
    return GgufPositions(
        turned if type(turned) is int else None,
        float(base) if isinstance(base, int | float) and 0 < base < math.inf else None,
        "longrope" if longrope else _stretching(architecture, settings),
        names.get(DIVISORS.encode(), 0),
    )


def _stretching(architecture: str, settings: Mapping[str, object]) -> str | None:
    """As llama.cpp reads it: linear where no kind is named, and none where the factor is none."""
    kind = settings.get("rope.scaling.type", "linear")
    factor = settings.get("rope.scaling.factor", settings.get("rope.scale_linear"))
    if kind == "none" or (kind == "linear" and factor in (None, 0, 1)):
        return None
    own = [
        name
        for name, usual in _OF_YARN.items()
        if settings.get(f"rope.scaling.{name}", usual[0]) not in usual
    ]
    # Where scores are multiplied too it must be there, as llama.cpp would do so by another number without.
    scores = any(row.log_times is not None and row.name == architecture for row in ARCHITECTURES.values())
    if bool(settings.get(YARN_LOGARITHM)) != scores:
        own.append(f"{'no ' * scores}yarn_log_multiplier")
    return f"{kind} with {own[0]}" if own and kind == "yarn" else str(kind)


def complete(config: Any, path: Path, stated: GgufPositions) -> None:
    """Give transformers' ``config`` the divided angles that the file ``path`` has ``stated``."""
    ropes = getattr(config, "rope_parameters", None) or {}
    whole = ropes.get("full_attention", ropes)
    if stated.stretching not in (None, whole.get("rope_type")) or (
        stated.divisors and "rope_theta" not in ropes
    ):
        raise _refused(path, stated.stretching or DIVISORS)
    if stated.divisors:
        config.rope_parameters = ropes | _llama_3(path, ropes["rope_theta"])


def check(anatomy: Anatomy, path: Path, stated: GgufPositions) -> None:
    """Hold what was read of the file ``path`` against what it has ``stated``."""
    ropes = anatomy.ropes()
    for rope in ropes:
        if stated.turned not in (None, rope.dim):
            raise CheckpointError(
                f"{path}: positions turn {stated.turned} channels of a head, and {rope.dim} in the model",
                fix=_WAY_OUT,
            )
    if stated.base is not None and ropes and not any(_near(rope.theta, stated.base) for rope in ropes):
        raise CheckpointError(
            f"{path}: positions have the base {stated.base:g}, and {ropes[0].theta:g} in the model",
            fix=_WAY_OUT,
        )


def divisors(theta: float, channels: int, settings: Mapping[str, float]) -> list[float]:
    """What llama.cpp's converter stores of ``settings``, a number for each pair of ``channels``."""
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    found = []
    for pair in range(0, channels, 2):
        turns = settings["original_max_position_embeddings"] / (2 * math.pi * theta ** (pair / channels))
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        found.append(1 / ((1 - smooth) / settings["factor"] + smooth))
    return found


def _llama_3(path: Path, theta: float) -> dict[str, Any]:
    """The settings that the numbers of the file ``path`` were worked out of."""
    stored = _numbers(path)
    settings = {**_LLAMA_3, "factor": max(stored, default=1.0)}
    wanted = divisors(theta, 2 * len(stored), settings)
    if not stored or not np.allclose(stored, wanted, rtol=_AS_STORED, atol=0):
        raise _refused(path, DIVISORS)
    return {"rope_type": "llama3", **settings}


def _numbers(path: Path) -> Sequence[float]:
    from gguf import GGUFReader

    for tensor in GGUFReader(path).tensors:
        if tensor.name == DIVISORS and tensor.data.dtype == np.float32:
            return [float(number) for number in tensor.data.reshape(-1)]
    return []


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_AS_STORED)


def _refused(path: Path, kind: str) -> CheckpointError:
    return CheckpointError(
        f"{path} stretches its positions ({kind}), which is not read from a GGUF file",
        why="the model would answer with other positions than it was trained with",
        fix=_WAY_OUT,
    )
