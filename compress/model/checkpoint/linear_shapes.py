"""The matrices of a model as ``config.json`` alone says them: transformers makes the model, without weights.

For forms that store a matrix without its sizes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ....errors import CheckpointError
from ....files.third_party_errors import third_party_errors_are_typed

LINEARS = "__linears__"  # beside the settings of a form
Shapes = dict[str, tuple[int, int]]
_REPEATED = ("layer", "expert")  # parts of the names of what a config counts


def linear_shapes(path: Path, config: Mapping[str, Any], tensors: int) -> Shapes:
    """``[out, in]`` of each linear by its module, of the model at ``path``, whose files hold so many
    ``tensors``.
    """
    import transformers

    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    built = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(built, type) and issubclass(built, transformers.PreTrainedModel)):
        raise CheckpointError(
            f"config.json names the model {name[:80]!r}, which transformers does not have",
            why="the sizes of its matrices are not in the files, but in the model alone",
        )
    for key, value in config.items():
        if any(part in key for part in _REPEATED) and isinstance(value, int) and value > tensors:
            raise CheckpointError(f"config.json says {key} {value}, and there are {tensors} tensors")
    with (
        third_party_errors_are_typed(
            lambda why: CheckpointError(f"transformers makes no {name} of {path / 'config.json'}", why=why)
        ),
        torch.device("meta"),
    ):
        settings = transformers.AutoConfig.from_pretrained(path)
        make: Any = built
        model = make._from_config(settings, dtype=torch.float32)
    return {
        module: (one.out_features, one.in_features)
        for module, one in model.named_modules()
        if isinstance(one, nn.Linear)
    }
