"""The names that ``pass:`` takes in a recipe, found without importing any pass.

All aliases stand here, as data: a pass that merged into another keeps its name in recipes, with the options
that make the other one do the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...plugins import names

PACKAGE = "edgepress.compress.passes"


def pass_names() -> list[str]:
    """The passes there are."""
    return names(PACKAGE)


@dataclass(frozen=True)
class Alias:
    """The pass that an old name stands for: ``options`` are set for it, ``training`` are its defaults."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """``narrow with parts: [mlp]``."""
        said = [f"{key}: {as_yaml(value)}" for key, value in self.options.items()]
        said += [f"training: {as_yaml(dict(self.training))}"] if self.training else []
        return f"{self.name} with {', '.join(said)}" if said else self.name


PASS_ALIASES = {
    "ffn": Alias("narrow", {"parts": ["mlp"]}),
    "heads": Alias("narrow", {"parts": ["attention"]}),
    "magnitude": Alias("prune", {"score": "magnitude"}),
    "recover": Alias("distill", {"losses": "outputs"}, {"learning_rate": 1e-3, "epochs": 2}),
    "wanda": Alias("prune", {"score": "wanda"}),
    "w8a8": Alias("rtn", {"scheme": "W8A8"}),
}
# Old names of options of the ``training`` section.
TRAINING_ALIASES = {"piece_tokens": "micro_batch_tokens"}


def choices() -> list[str]:
    """Names that ``pass:`` takes, old ones too."""
    return sorted([*pass_names(), *PASS_ALIASES])


def as_yaml(value: Any) -> str:
    """A value as a recipe would say it, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
