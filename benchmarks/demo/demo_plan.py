"""What the demo runs: its models with their recipes, and how much is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..speed.protocol import Protocol

PROMPT = "Write a short story about a lighthouse keeper."


@dataclass(frozen=True)
class DemoModel:
    """One model of the demo and how it is compressed.

    Attributes:
        described: the title of its steps.
        calibration: arguments of ``compress_model``.
        seconds: planned duration of each step, for the ETA.
        text: held-out text to validate on; by default the demo corpus.
    """

    name: str
    model: str
    recipe: str
    described: str
    calibration: Mapping[str, Any]
    seconds: Mapping[str, float]
    text: str | None = None

    def identity(self) -> dict[str, Any]:
        """What a result depends on."""
        return {
            "model": self.model,
            "recipe": self.recipe,
            "calibration": dict(self.calibration),
            "text": self.text,
        }


@dataclass(frozen=True)
class DemoSize:
    """How much is measured."""

    windows: int
    length: int
    sentences: int
    protocol: Protocol


# Ten minutes on two cores leave room for eight blocks and a warm-up of one second.
FULL = DemoSize(windows=8, length=512, sentences=128, protocol=Protocol(blocks=8, warmup_seconds=1.0))
QUICK = DemoSize(windows=4, length=256, sentences=64, protocol=Protocol.quick())
MODELS = (
    DemoModel(
        name="minilm",
        model="minilm",
        recipe="w8a8",
        described="MiniLM to W8A8",
        calibration={},
        seconds={"compress": 3, "export": 2, "original": 1, "validate": 12, "profile": 60},
    ),
    DemoModel(
        name="smollm2",
        model="smollm2",
        recipe="w4a16-gptq",
        described="SmolLM2 to W4A16, group 64, GPTQ",
        calibration={"calibration": "wikipedia", "samples": 16, "length": 512},
        seconds={"compress": 120, "export": 10, "original": 5, "validate": 60, "profile": 90},
    ),
)


def smaller(model: DemoModel) -> DemoModel:
    """The same model with a quarter of the calibration sequences, half as long."""
    less = {"samples": 4, "length": 256}
    return replace(model, calibration={**model.calibration, **less} if model.calibration else {})
