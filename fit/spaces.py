"""``Spaces``: the candidates of a model, and those of what each cut leaves of it, or a packaged recipe.

Heads, channels and blocks that go do not add up with bits: what is left of a linear has other candidates. How
much goes is a choice of methods (:data:`.methods.CUTS`); which of them the pruning passes solve themselves;
and the rest is a model like any other, with losses of its own beside the damage of the cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml

from ..compress.api import compress_model
from ..compress.model.weights import WeightSource
from ..compress.pipeline.device import choose_device
from ..compress.pipeline.sealed import write_sealed
from ..compress.text.calibration import Calibration
from ..devices.predict.table_cost import TableCost
from ..output_lock import alone
from ..storage import read_json, sha256_json, write_atomic
from ..terminal import Progress
from .budgets import Budget
from .candidates import Space, space_of
from .latency import rests_of, times_of
from .losses import Losses, known_losses, losses_file, measure_losses
from .methods import CUTS
from .packaged import given_by


@dataclass
class Spaces:
    """Of the model ``source``, whose weights have the ``fingerprint``.

    Attributes:
        model: as the user named it. text, settings: what recipes are calibrated on, and how much of it.
        directory: of the search; processes share it.
        costs: of each device with a budget of speed.
    """

    model: str
    source: WeightSource
    fingerprint: str
    calibration: Calibration
    text: str
    settings: Mapping[str, object]
    budgets: tuple[Budget, ...]
    costs: dict[str, TableCost]
    directory: Path
    device: str
    progress: Progress
    _found: dict[str, tuple[WeightSource, Space]] = field(default_factory=dict)

    def of(self, key: str = "") -> Space:
        """The candidates behind the cut, or the one choice of the packaged recipe, that is called ``key``,
        with their losses; measured where they are not known.

        Raises:
            EdgepressError: as the pruning pass, or what measures.
        """
        return self._opened(key)[1]

    def left(self, key: str) -> WeightSource:
        """What the cut leaves of the model."""
        return self._opened(key)[0]

    def knows(self, recipe: str) -> bool:
        """Whether all that the packaged ``recipe`` gives the model is among the candidates."""
        return given_by(self.source, recipe) is not None

    def _opened(self, key: str) -> tuple[WeightSource, Space]:
        if key not in self._found:
            cut = key if key in CUTS else ""
            source = WeightSource.open(self._pruned(cut)) if cut else self.source
            given = given_by(source, key) if key and not cut else None
            space = space_of(source, self._losses(source, cut), given)
            rests = rests_of(space, source, self.budgets, self.costs)
            times = times_of(space, source, self.budgets, self.costs, rests)
            before = _damage(source) if cut else 0.0
            self._found[key] = source, replace(space, times=times, rests=rests, before=before)
        return self._found[key]

    def _pruned(self, cut: str) -> Path:
        """The checkpoint that the cut leaves, made by one of the processes that share the directory."""
        recipe = {"name": "cut", "passes": [CUTS[cut]], "calibration": dict(self.settings)}
        key = sha256_json([self.fingerprint, recipe, self.calibration.sha256])
        folder = self.directory / "cuts" / key[:16]
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / "lock"):
            if not (folder / "checkpoint").exists():
                write_atomic(folder / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False).encode())
                compress_model(
                    self.model,
                    output=folder / "checkpoint",
                    recipe=str(folder / "recipe.yaml"),
                    calibration=self.text,
                    device=self.device,
                    requantize=True,
                    progress=self.progress,
                )
        return folder / "checkpoint"

    def _losses(self, source: WeightSource, cut: str) -> Losses:
        """Kept in the directory too, for processes elsewhere."""
        fingerprint = source.reader.fingerprint() if cut else self.fingerprint
        shared = self.directory / losses_file(fingerprint, source.anatomy, self.calibration).name
        found = known_losses(shared)
        if found is None:
            work = self.directory / "losses" / fingerprint[:16]
            device = choose_device(self.device)
            found = measure_losses(source, fingerprint, self.calibration, work, device, self.progress)
            write_sealed(shared, asdict(found))
        return found


def _damage(pruned: WeightSource) -> float:
    """Of the cut itself, in the unit of losses: as the pass measured it on the probe text."""
    steps = read_json(pruned.reader.path / "edgepress.json")["steps"]
    found: dict[str, float] = next((step["damage"] for step in reversed(steps) if step.get("damage")), {})
    # Of unit vectors the squared distance is twice what is missing to a cosine of 1.
    return float(found.get("kl", 2 * found.get("distance", 0.0)))
