"""What a quantizer is asked: a scheme, a checkpoint, calibration tokens, and a directory for the result.

Standard library only: this file runs in every peer's environment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Variant:
    """One way in which a tool quantizes the linear layers.

    Attributes:
        method: for tables; methods of the same name do the same work.
        bits, group_size: of the codes, and input channels per scale; None is one scale per output channel.
        scale_bits, zero_bits: bits of the scale and of the zero point of a group, as the tool stores them.
        calibrated: whether it sees the calibration tokens.
        activations: bits of the activations; 16 leaves them alone.
        budget: stored bits a weight of a plan with a width for each layer; ``bits`` is then its largest.
    """

    method: str
    bits: int
    group_size: int | None = 64
    scale_bits: int = 16
    zero_bits: int = 0
    calibrated: bool = True
    activations: int = 16
    budget: float | None = None

    @property
    def stored_bits(self) -> float:
        """Bits per weight, scales and zero points counted; a scale per channel is as good as nothing."""
        if self.budget is not None:
            return self.budget
        return self.bits + ((self.scale_bits + self.zero_bits) / self.group_size if self.group_size else 0)


_BETWEEN: dict[str, tuple[int, int | None]] = {
    "w3-channel": (3, None),
    "w3-g32": (3, 32),
    "w4-channel": (4, None),
}


def between(method: str, **options: Any) -> dict[str, Variant]:
    """Uniform schemes of about 3, 3.5 and 4 bits a weight, beside plans of widths of that size."""
    return {
        name: Variant(method, bits, group_size=group_size, **options)
        for name, (bits, group_size) in _BETWEEN.items()
    }


@dataclass(frozen=True)
class Task:
    """One quantization.

    Attributes:
        checkpoint: a Hugging Face directory with float32 safetensors and a tokenizer.
        calibration: JSON file, a list of sequences of token ids.
        output: an empty directory.
    """

    checkpoint: Path
    calibration: Path
    output: Path

    def tokens(self) -> list[list[int]]:
        """The calibration sequences."""
        found: list[list[int]] = json.loads(self.calibration.read_text(encoding="utf-8"))
        return found
