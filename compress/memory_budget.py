"""What a plan needs, held against what this machine has, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import EdgepressError, OutOfResource
from ..runtime.session.needs import available_memory as free_on_the_host
from ..runtime.session.needs import gigabytes, lacking
from .model.weights import WeightSource
from .model_checks import check_kind, check_shapes
from .plan import memory_of
from .recipe import Recipe, load_recipe
from .recipe_files import names

if TYPE_CHECKING:
    import torch

_SUGGESTED = 4
_NOTHING_FITS = "no packaged recipe fits: free some memory, or raise --max-memory if it was given"


def available_memory(device: torch.device, most: float | None = None) -> int:
    """Bytes that a run on ``device`` may take, what this process holds already included: at most ``most`` GB,
    and what is free within the limit of the process's control groups; of a CUDA device what is free there.
    """
    import torch

    if device.type != "cuda":
        return free_on_the_host(most)
    free = int(torch.cuda.mem_get_info(device)[0])
    return free if most is None else min(free, int(most * 1e9))


def require_memory(
    source: WeightSource, recipe: Recipe, samples: int, length: int, batch_size: int, available: int
) -> None:
    """Refuse a ``recipe`` that needs more than the ``available`` bytes on the model ``source``."""

    def needs(recipe: Recipe) -> int:
        return memory_of(source, recipe, samples, length, batch_size)

    needed = needs(recipe)
    if needed <= available:
        return
    passes = zip(recipe.passes, recipe.steps, strict=True)
    most, (_, options) = max(passes, key=lambda one: needs(recipe.model_copy(update={"passes": (one[0],)})))
    fitting = [(size, other.name) for other in _packaged(source) if (size := needs(other)) <= available]
    listed = ", ".join(f"{name} ({gigabytes(size)})" for size, name in sorted(fitting)[-_SUGGESTED:])
    fits = f"recipes that would fit: {listed}" if listed else _NOTHING_FITS
    raise OutOfResource(
        f"pass {most.name} needs {lacking(needed, available)}",
        why="nothing was loaded",
        fix="; or ".join(filter(None, (options.lighter, fits))),
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
