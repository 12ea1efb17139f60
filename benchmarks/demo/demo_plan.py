"""What the demo runs: its models with the versions that are made of them, and how much is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..speed.protocol import Protocol

NEW_TOKENS = 128  # as `profile` has it
PROMPT = "Write a short story about a lighthouse keeper."


@dataclass(frozen=True)
class DemoVersion:
    """One compressed version of a model.

    Attributes:
        described: the title of its steps.
        calibration: arguments of ``compress_model``.
        seconds: planned duration of each step, for the ETA.
    """

    recipe: str
    described: str
    calibration: Mapping[str, Any]
    seconds: Mapping[str, float]

    def identity(self) -> dict[str, Any]:
        """What a result depends on."""
        return {"recipe": self.recipe, "calibration": dict(self.calibration)}


@dataclass(frozen=True)
class DemoModel:
    """One model of the demo with its versions.

    Attributes:
        described: the title of its steps.
        text: held-out text to validate on; by default the demo corpus.
        seconds: planned duration of exporting the original and of timing all side by side.
    """

    name: str
    model: str
    described: str
    versions: tuple[DemoVersion, ...]
    seconds: Mapping[str, float]
    text: str | None = None


@dataclass(frozen=True)
class DemoSize:
    """How much is measured."""

    windows: int
    length: int
    sentences: int
    protocol: Protocol
    new_tokens: int = NEW_TOKENS


FULL = DemoSize(
    windows=8,
    length=512,
    sentences=128,
    protocol=Protocol(blocks=6, warmup_seconds=1.0, most_seconds=120.0),
)
# A first look: as much text and as many blocks as two minutes have room for.
FIRST = DemoSize(
    windows=4,
    length=512,
    sentences=64,
    protocol=Protocol(blocks=5, warmup_seconds=0.3, most_seconds=20.0),
    new_tokens=64,
)
_TEXT = {"calibration": "wikipedia", "samples": 16, "length": 512}
_FOUR_BITS = DemoVersion(
    "w4a16-gptq", "SmolLM2 to 4 bits", _TEXT, {"compress": 45, "export": 8, "validate": 25}
)
MODELS = (
    DemoModel(
        name="minilm",
        model="minilm",
        described="MiniLM",
        versions=(
            DemoVersion("w8a8", "MiniLM to 8 bits", {}, {"compress": 3, "export": 2, "validate": 10}),
            DemoVersion(
                "w4a16-gptq",
                "MiniLM to 4 bits",
                _TEXT,
                {"compress": 20, "export": 3, "validate": 10},
            ),
        ),
        seconds={"original": 1, "profile": 50},
    ),
    DemoModel(
        name="smollm2",
        model="smollm2",
        described="SmolLM2",
        versions=(
            DemoVersion("w8a8", "SmolLM2 to 8 bits", {}, {"compress": 10, "export": 10, "validate": 25}),
            _FOUR_BITS,
            DemoVersion(
                "w3a16-gptq",
                "SmolLM2 to 3 bits",
                _TEXT,
                {"compress": 90, "export": 8, "validate": 25},
            ),
        ),
        seconds={"original": 5, "profile": 110},
    ),
)
# What `edgepress demo` does without --all: one decoder in one version.
FIRST_MODELS = (
    DemoModel(
        name="smollm2",
        model="smollm2",
        described="SmolLM2",
        versions=(
            replace(
                _FOUR_BITS,
                calibration={**_TEXT, "samples": 8},
                seconds={"compress": 35, "export": 8, "validate": 24},
            ),
        ),
        seconds={"original": 6, "profile": 40},
    ),
)
