"""What a compression takes by the plan of its recipe: estimates, of time from the rates that were measured of
this machine. No text is read, and the model is not opened again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..compress.job import BATCH_TOKENS
from ..compress.memory_budget import available_memory, require_memory
from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import Scheme
from ..compress.pipeline.device import choose_device
from ..compress.plan import Plan, memory_of, plan
from ..compress.recipe import Recipe, parse
from ..compress.sample_length import sample_length
from ..errors import OutOfResource
from ..files.disk import require_disk
from ..runtime.session.needs import lacking
from .cuts.cut_space import CORRECTED
from .losses import LINEAR_SCHEMES, linear_schemes


def planned_seconds(source: WeightSource, recipe: Mapping[str, Any]) -> float:
    """Of the compression of ``source`` by ``recipe``."""
    return _planned(source, _parsed(recipe)).seconds


def seconds_with_room(source: WeightSource, recipe: Mapping[str, Any], folder: Path, device: str) -> float:
    """The same, where this machine has room for it: memory of the ``device``, and the disk of ``folder``."""
    parsed = _parsed(recipe)
    found, available = _planned(source, parsed), available_memory(choose_device(device))
    require_disk(folder, found.disk)
    if found.peak_memory > available:
        require_memory(source, parsed, *_sizes(source, parsed), available)
    return found.seconds


def require_room_to_measure(source: WeightSource, samples: int, length: int, device: str) -> None:
    """Refuse, before anything is read, a model of which this machine cannot measure what each part loses: a
    backward sweep as that of ``allocate`` with GPTQ, in all schemes.
    """
    calibration = {"samples": samples, "length": length}
    parsed = _parsed({"passes": [_measuring(LINEAR_SCHEMES)], "calibration": calibration})
    needed = memory_of(source, parsed, *_sizes(source, parsed))
    available = available_memory(choose_device(device))
    if needed > available:
        raise OutOfResource(
            f"fit needs {lacking(needed, available)}",
            why="to measure what each part loses; nothing was loaded",
            fix="free some memory, or take a smaller model",
        )


def cutting_seconds(source: WeightSource, calibration: Mapping[str, Any]) -> float:
    """To make the cut that is solved, as often as it is corrected, and to measure the losses of what is left:
    as by `narrow`, and by `allocate` among all schemes. ``calibration`` is that section of a recipe.
    """
    cut = {"pass": "narrow", "keep": 0.9, "widths": "uniform"}
    steps = cut, _measuring(linear_schemes(source.anatomy))
    recipes = ({"name": "cut", "passes": [one], "calibration": calibration} for one in steps)
    cutting, measuring = (planned_seconds(source, one) for one in recipes)
    return CORRECTED * cutting + measuring


def _measuring(schemes: Sequence[Scheme]) -> dict[str, Any]:
    """The pass that measures what each part loses in each of ``schemes``, by the codes of GPTQ."""
    names = [scheme.name for scheme in schemes]
    return {"pass": "allocate", "bits": 4, "schemes": names, "using": {"pass": "gptq"}}


def _parsed(recipe: Mapping[str, Any]) -> Recipe:
    return parse(dict(recipe), "a recipe of fit")


def _planned(source: WeightSource, recipe: Recipe) -> Plan:
    samples, length, batch_size = _sizes(source, recipe)
    return plan(
        source,
        recipe,
        name=source.reader.path.name,
        samples=samples,
        length=length,
        batch_size=batch_size,
        requantize=True,
    )


def _sizes(source: WeightSource, recipe: Recipe) -> tuple[int, int, int]:
    """Sequences, their tokens, and how many go through a block at once."""
    settings = recipe.calibration
    length = sample_length(source.anatomy, settings.length)
    return settings.samples, length, max(1, BATCH_TOKENS // length)
