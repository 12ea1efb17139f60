"""The head of an encoder: a classifier of texts, of tokens, or of the span that answers a question is read,
and any other is named, so that none is left out silently. A masked language model and a checkpoint from
pretraining are encoders: their head served to learn by.
"""

from dataclasses import dataclass, replace
from typing import Literal

from ....errors import CheckpointError
from ..anatomy import Anatomy, Classifier, Shapes
from ..block_anatomy import Norm
from ._tensors import Config, linear

Activation = Literal["tanh", "relu", "gelu"]
ACTIVATIONS: tuple[Activation, ...] = ("tanh", "relu", "gelu")
# What is labelled, by how the architecture's name ends.
_LABELLED: dict[str, Literal["text", "token", "span", "image"]] = {
    "ForSequenceClassification": "text",
    "ForTokenClassification": "token",
    "ForQuestionAnswering": "span",
    "ForImageClassification": "image",
}
_SPAN = ("start", "end")
_SEVERAL = "multi_label_classification"
_HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining", "ForMaskedImageModeling")
# What heads are called where no architecture is named.
_HEADS = ("classifier", "pre_classifier", "qa_outputs")


@dataclass(frozen=True)
class HeadNames:
    """The modules of a family's classifier of texts; ``dense`` begins with the encoder's prefix where it is
    in that. ``of_tokens`` and ``of_spans`` are the classifiers of tokens and of spans, which read the states
    themselves, or where ``shared`` what comes before the classifier of texts, too.
    """

    dense: str | None
    out: str
    activation: Activation = "tanh"
    of_tokens: str = "classifier"
    of_spans: str = "qa_outputs"
    norm: Norm | None = None
    pooling: Literal["first", "mean", "late", "first_and_mean"] = "first"
    shared: bool = False


def with_head(anatomy: Anatomy, config: Config, shapes: Shapes, names: HeadNames) -> Anatomy:
    """The encoder ``anatomy`` with the head that its checkpoint has."""
    classifier, other = _head(config, shapes, names, anatomy.base, anatomy.hidden_size)
    found = anatomy if classifier is not None else anatomy.without_head()
    return replace(found, classifier=classifier, other_head=other)


def _head(
    config: Config, shapes: Shapes, names: HeadNames, base: str, hidden: int
) -> tuple[Classifier | None, str | None]:
    """The classifier of texts, tokens or spans, or what another head is called; both None for an encoder
    alone.
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
    labelled = next((kind for end, kind in _LABELLED.items() if name.endswith(end)), None)
    problem = config.get("problem_type") if labelled in ("text", "image") else None
    if labelled is None:
        return None, f"the head of {name}"
    out = {"token": names.of_tokens, "span": names.of_spans}.get(labelled, names.out)
    dense = names.dense if names.shared or labelled == "text" else None
    needed = (out,) if dense is None else (out, dense)
    if not base or any(f"{module}.weight" not in shapes for module in needed):
        return None, f"the head of {name}, which the checkpoint lacks"
    if dense is not None:
        linear(shapes, dense, "up", inputs=hidden, outputs=hidden)
    wide = 2 * hidden if names.pooling == "first_and_mean" else hidden
    count = linear(shapes, out, "up", inputs=wide).out_features
    if count > 1 and problem == "regression":
        return None, f"the head of {name} for {count} numbers"
    if labelled == "span" and count != len(_SPAN):
        return None, f"the head of {name} with {count} outputs"
    return Classifier(
        dense,
        names.activation,
        out,
        _SPAN if labelled == "span" else _labels(config, count),
        norm=None if dense is None else names.norm,
        labelled=labelled,
        pooling=names.pooling,
        several=count > 1 and problem == _SEVERAL,
    ), None


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
