"""What a plan needs, held against what this machine has, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import EdgepressError, OutOfResource
from ..runtime.session.threads import free_memory, memory_limit
from .costs import resident
from .model.weights import WeightSource
from .plan import check_kind, check_shapes, memory_of
from .recipe import Recipe, load_recipe
from .recipe_files import names

if TYPE_CHECKING:
    import torch

# How far the time of a run may be from the plan's, either way: other work shares the machine.
_FASTER, _SLOWER = 0.5, 2.0
_UNITS = (("seconds", 1, 120), ("minutes", 60, 120), ("hours", 3600, 48), ("days", 86400, float("inf")))
_SUGGESTED = 4


def available_memory(device: torch.device, most: float | None = None) -> int:
    """Bytes that a run on ``device`` may take, what this process holds already included: at most ``most`` GB,
    and what is free within the limit of the process's control groups; of a CUDA device what is free there.
    """
    import torch

    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        limit = memory_limit()
        free = free_memory() + resident()
        free = free if limit is None else min(free, limit)
    return free if most is None else min(free, int(most * 1e9))


def require_memory(
    source: WeightSource, recipe: Recipe, samples: int, length: int, batch_size: int, available: int
) -> None:
    """Refuse a ``recipe`` that needs more than the ``available`` bytes on the model ``source``.

    Raises:
        OutOfResource: names the pass, both numbers, and the packaged recipes that would fit.
    """

    def needs(recipe: Recipe) -> int:
        return memory_of(source, recipe, samples, length, batch_size)

    needed = needs(recipe)
    if needed <= available:
        return
    most = max(recipe.passes, key=lambda step: needs(recipe.model_copy(update={"passes": (step,)})))
    fitting = [(size, other.name) for other in _packaged(source) if (size := needs(other)) <= available]
    listed = ", ".join(f"{name} ({_gigabytes(size)})" for size, name in sorted(fitting)[-_SUGGESTED:])
    raise OutOfResource(
        f"pass {most.name} needs {_gigabytes(needed)} of memory, {_gigabytes(available)} are there",
        why="nothing was loaded",
        fix=f"recipes that would fit: {listed}" if listed else "no packaged recipe fits: free some memory",
    )


def _packaged(source: WeightSource) -> Iterator[Recipe]:
    """The packaged recipes that are for such a model."""
    for name in names():
        try:
            recipe = load_recipe(name)
            check_kind(source.anatomy, recipe)
            check_shapes(source.anatomy, recipe)
        except EdgepressError:
            continue
        yield recipe


def headline(memory: int, available: int, disk: int, seconds: float) -> str:
    """The plan of a run in a line."""
    return (
        f"plan: {_gigabytes(memory)} of memory ({_gigabytes(available)} are there), "
        f"{_gigabytes(disk)} of disk, {time_range(seconds)}"
    )


def time_range(seconds: float) -> str:
    """``4 to 15 minutes``: about how long work takes that is planned to take so many ``seconds``."""
    low, high = _FASTER * seconds, _SLOWER * seconds
    name, size = next((name, size) for name, size, most in _UNITS if high < most * size)
    return f"{max(1, round(low / size))} to {max(2, round(high / size))} {name}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"
