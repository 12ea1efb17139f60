"""The head of an encoder: a classifier of texts is read, and what is another head is named, so that nobody
leaves it out unsaid.

A masked language model and a checkpoint from pretraining are encoders: their head served to learn by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ....errors import CheckpointError
from ..anatomy import Shapes
from ..classifier import Classifier
from ._tensors import Config, linear

_CLASSIFIES = "ForSequenceClassification"
_HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining")
# What heads are called where no architecture tells.
_HEADS = ("classifier", "pre_classifier", "qa_outputs")


@dataclass(frozen=True)
class HeadNames:
    """The modules of a family's classifier; ``dense`` begins with the encoder's prefix where it is in it."""

    dense: str
    out: str
    activation: Literal["tanh", "relu"] = "tanh"


def encoder_head(
    config: Config, shapes: Shapes, names: HeadNames, base: str, hidden: int
) -> tuple[Classifier | None, str | None]:
    """The classifier of texts, or what another head is called; both None for an encoder alone.

    ``base`` is the prefix of the encoder in stored names.

    Raises:
        CheckpointError: a classifier whose tensors do not fit its labels or the encoder.
    """
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        raise CheckpointError(f"config.json: architectures must be a list, not {architectures!r}")
    if not architectures:
        stored = next(
            (name for name in shapes if name.startswith(tuple(f"{head}." for head in _HEADS))), None
        )
        return None, None if stored is None else f"a head of unknown kind (tensor {stored!r})"
    name = str(architectures[0])
    if name.endswith(_HEADLESS):
        return None, None
    if not name.endswith(_CLASSIFIES):
        return None, f"the head of {name}"
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification"):
        return None, f"the head of {name} for {problem}"
    if not base or f"{names.dense}.weight" not in shapes or f"{names.out}.weight" not in shapes:
        return None, f"the head of {name}, which the checkpoint lacks"
    linear(shapes, names.dense, "up", inputs=hidden, outputs=hidden)
    count = linear(shapes, names.out, "up", inputs=hidden).out_features
    if count == 1:
        return None, f"the head of {name} for a single number"
    return Classifier(names.dense, names.activation, names.out, _labels(config, count)), None


def _labels(config: Config, count: int) -> tuple[str, ...]:
    """The names of ``count`` labels; transformers' own where the config has none."""
    named = config.get("id2label")
    if named is None:
        named = {str(index): f"LABEL_{index}" for index in range(int(config.get("num_labels") or 2))}
    if not isinstance(named, dict) or set(map(str, named)) != {str(index) for index in range(count)}:
        raise CheckpointError(
            f"config.json: id2label must name the {count} labels of the classifier by 0 to {count - 1}",
            why=f"it is {named!r}",
        )
    names = {int(index): str(label) for index, label in named.items()}
    if len(set(names.values())) < count:
        raise CheckpointError(f"config.json: id2label has one name for several labels: {named!r}")
    return tuple(names[index] for index in range(count))
