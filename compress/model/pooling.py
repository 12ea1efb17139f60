"""How an encoder's token vectors become one sentence vector, as its sentence-transformers files say.

``modules.json`` lists the stages, ``1_Pooling/config.json`` the pooling mode, ``sentence_bert_config.json``
the length at which texts are cut. An encoder without these files has no pooling: a mean would be a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...errors import CheckpointError
from ...files.storage import contained, is_regular, read_json

if TYPE_CHECKING:
    from torch import Tensor

STAGES = "modules.json"
Mode = Literal["mean", "cls", "last"]
# Flags, and the names that newer sentence-transformers have in their place.
MODES: dict[str, Mode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
NAMED: dict[str, Mode] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}


@dataclass(frozen=True)
class Pooling:
    """What a sentence vector is made of.

    Attributes:
        mode: the masked mean of the last hidden states, that of the first token, that of the last that is no
            padding, ``tower`` where the anatomy of one of two encoders says it, or None when no file says.
        normalize: whether the vector is divided by its L2 norm.
        max_length: tokens at which a text is cut, special tokens included, or None when no file says.
        include_prompt: whether the tokens of a prompt in front of a text count as the others.
    """

    mode: Mode | Literal["tower"] | None
    normalize: bool
    max_length: int | None
    include_prompt: bool = True

    def apply(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Sentence vectors ``[batch, hidden]`` from states ``[batch, length, hidden]`` and a mask ``[batch,
        length]``.
        """
        assert self.mode != "tower", "the model itself gives the vectors of a tower"
        if self.mode is None:
            raise CheckpointError(
                "this encoder has no sentence embeddings: no file beside it says how to pool",
                fix="use a sentence-transformers model, with modules.json and 1_Pooling/config.json",
            )
        if self.mode == "cls":
            vectors = hidden[:, 0]
        else:
            counted = last_of(mask) if self.mode == "last" else mask
            weights = counted.unsqueeze(-1).to(hidden.dtype)
            vectors = (hidden * weights).sum(1) / weights.sum(1)
        return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12) if self.normalize else vectors


def last_of(mask: Tensor) -> Tensor:
    """Of ``mask [batch, length]`` the last one of each row alone, on whatever side padding is."""
    return mask * (mask.flip(1).cumsum(1).flip(1) == 1)


# An image's vector is its class token's state behind the last norm.
IMAGE_POOLING = Pooling("cls", normalize=False, max_length=None)
TOWER_POOLING = Pooling("tower", normalize=True, max_length=None)


def embeds_sentences(directory: Path) -> bool:
    """Whether the model in ``directory`` is a sentence-transformers one, which uses no other head."""
    return is_regular(directory / STAGES)


def pooling_of(directory: Path) -> Pooling:
    """The pooling of the encoder in ``directory``."""
    stages = _modules(directory)
    mode: Mode | None = None
    prompt = True
    for kind, folder in stages:
        if kind == "Pooling":
            mode, prompt = _mode(contained(directory, f"{folder}/config.json"))
        elif kind not in ("Transformer", "Normalize"):
            raise CheckpointError(
                f"{directory} has a stage {kind!r} after its transformer, which this version does not know"
            )
    length = _max_length(directory / "sentence_bert_config.json")
    return Pooling(mode, any(kind == "Normalize" for kind, _ in stages), length, prompt)


def _modules(directory: Path) -> list[tuple[str, str]]:
    file = directory / STAGES
    if not is_regular(file):
        return []
    content = read_json(file)
    if not isinstance(content, list) or not all(isinstance(stage, dict) for stage in content):
        raise CheckpointError(f"{file} is not a list of stages")
    return [(str(stage.get("type", "")).rpartition(".")[2], str(stage.get("path", ""))) for stage in content]


def _mode(file: Path) -> tuple[Mode, bool]:
    """The mode of the ``file``, and whether prompts count."""
    content: Any = read_json(file)
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    chosen = sorted(key for key, on in content.items() if key.startswith("pooling_mode_") and on is True)
    named, prompt = content.get("pooling_mode"), content.get("include_prompt", True) is not False
    if isinstance(named, str) and named in NAMED and not chosen:
        return NAMED[named], prompt
    if len(chosen) != 1 or chosen[0] not in MODES:
        raise CheckpointError(
            f"{file} asks for {', '.join(chosen) or 'no pooling mode'}", why=f"known: {', '.join(MODES)}"
        )
    return MODES[chosen[0]], prompt


def _max_length(file: Path) -> int | None:
    content = read_json(file) if is_regular(file) else {}
    length = content.get("max_seq_length") if isinstance(content, dict) else None
    if length is not None and (type(length) is not int or length <= 0):
        raise CheckpointError(f"{file}: max_seq_length must be a positive whole number, not {length!r:.80}")
    return length
