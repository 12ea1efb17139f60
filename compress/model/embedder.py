"""The anatomy of a model whose last states become vectors: an encoder, also where it was made as a decoder
(Qwen3-Embedding, E5-Mistral). No head is read, so none needs to be stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import CheckpointError
from .anatomy import Anatomy, Shapes
from .family import anatomy_of
from .pooling import STAGES

# How the names of models without a head end.
_HEADLESS = "Model"


def embedder_of(config: Mapping[str, Any], shapes: Shapes) -> Anatomy:
    """As :func:`.family.anatomy_of`, of a model that sentence-transformers opens.

    Raises:
        UnknownName, CheckpointError: as there; and the model is an encoder–decoder.
    """
    found = anatomy_of(_of_any_head(config), shapes)
    if found.kind == "encoder_decoder":
        raise CheckpointError(
            f"the model embeds sentences ({STAGES}) and is of the kind {found.kind}",
            why="states of one stack alone become vectors here",
            fix=f"to compress it as a model that writes, remove {STAGES} from a copy of it",
        )
    return found.without_head()


def _of_any_head(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` of a model that need not have the head of a decoder, nor store it."""
    names = [str(name) for name in config.get("architectures") or []]
    bare = bool(names) and all(name.endswith(_HEADLESS) and "LMHead" not in name for name in names)
    return {**config, "tie_word_embeddings": True, **({"architectures": None} if bare else {})}
