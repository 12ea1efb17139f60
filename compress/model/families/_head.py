"""The head of a causal language model: whether there is one, and whether it is the embedding."""

from __future__ import annotations

from ....errors import CheckpointError
from ..anatomy import Shapes
from ._tensors import Config, shape_of


def check_architecture(config: Config) -> None:
    """Refuse a checkpoint that is no causal language model.

    Raises:
        CheckpointError: its head is not a vocabulary head, or its attention looks ahead.
    """
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
    """Whether the module ``head`` is the token embedding.

    Raises:
        CheckpointError: the head has a matrix of its own, which is missing or has another shape.
    """
    # A checkpoint may store the shared matrix twice: the flag decides, then what is stored.
    flag = config.get("tie_word_embeddings")
    if flag is False or (not flag and f"{head}.weight" in shapes):
        shape_of(shapes, f"{head}.weight", vocabulary, hidden)
        return False
    return True
