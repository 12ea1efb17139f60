"""``Setting``: what all trials of a run share, and by what a trial is identified."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..benchmarks.quality.subgroups.items import kept_for_calibration
from ..compress.recipe import parse
from ..compress.text.protected_text import ProtectedText
from ..files.storage import sha256_json
from .asked.texts import Texts
from .budgets import Budget
from .quantities import ENERGY

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Setting:
    """What all trials of a run share.

    Attributes:
        model: as the user named it; ``fingerprint``: of its weights.
        calibration: samples, length and seed, as a recipe has them. windows: of text in a measurement of
            a decoder's quality, each as long.
        budgets: which decide on what is measured on which devices.
    """

    model: str
    fingerprint: str
    texts: Texts
    calibration: Mapping[str, int]
    windows: int
    budgets: Sequence[Budget]
    threads: int | None = None
    device: str = "auto"

    def key_of(self, recipe: Mapping[str, Any]) -> str:
        """The hash of all that decides on a trial."""
        how = [__version__, self.fingerprint, recipe, self.texts.hashes, self.windows, self.device]
        return sha256_json([*how, [one.sha256 for one in self.protected(recipe)]])

    def protected(self, recipe: Mapping[str, Any]) -> list[ProtectedText]:
        """What the slices of budgets keep for calibration, which is never measured, where ``recipe`` reads
        text.
        """
        if not parse(dict(recipe), RECIPE).calibrated:
            return []
        return [text for name in self.slices if (text := kept_for_calibration(name)) is not None]

    @property
    def devices(self) -> list[str]:
        """Those that something is measured on."""
        return list(dict.fromkeys(str(one.device) for one in self.budgets if one.quantity.on_device))

    @property
    def slices(self) -> list[str]:
        """Those whose worst group a budget is about."""
        return list(dict.fromkeys(one.slice for one in self.budgets if one.slice is not None))

    @property
    def counts_energy(self) -> bool:
        """Whether a meter has to count what something takes."""
        return any(one.quantity is ENERGY and one.watts is None for one in self.budgets)

    def quality_file(self, text: Path) -> str:
        """Where a trial keeps how good it is on ``text``."""
        return f"{'-'.join([text.stem, *self.slices])}.json"

    def device_file(self, name: str) -> str:
        """Where a trial keeps what was measured of it on the device of that name."""
        return f"device-{name}{'-energy' * self.counts_energy}.json"
