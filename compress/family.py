"""From a config and tensor shapes to an ``Anatomy``, through the family file that ``model_type`` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import plugins
from ..errors import CheckpointError
from .anatomy import Anatomy, Shapes

FAMILIES = f"{__package__}.families"


def anatomy_of(config: Mapping[str, Any], shapes: Shapes) -> Anatomy:
    """The anatomy of a model.

    Args:
        config: the content of ``config.json``.
        shapes: logical shape of each tensor by its dense name (``….weight``, ``….bias``).

    Raises:
        UnknownName: no family file for this ``model_type``; carries the nearest.
        CheckpointError: config and tensors disagree; names the setting or the tensor.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError(
            "config.json has no model_type", fix=f"known families: {', '.join(plugins.names(FAMILIES))}"
        )
    family = plugins.load(FAMILIES, model_type, "model family")
    anatomy: Anatomy = family.anatomy(config, shapes)
    return anatomy
