"""``Spaces``: the candidates of a model, and those of what each cut leaves of it, or a packaged recipe.

What goes is solved beside the bits (:mod:`.cut_space`), or how much of it is a choice of methods
(:data:`.methods.CUTS`) and which heads, channels and blocks the pruning passes solve themselves. What is
left, which may learn from the original, is a model like any other, with losses of its own beside the damage
so far.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ..compress.api import compress_model
from ..compress.model.weights import WeightSource
from ..compress.pipeline.device import choose_device
from ..compress.pipeline.journal import read_sealed, write_sealed
from ..compress.recipe_files import names
from ..compress.text.calibration import Calibration
from ..devices.predict.table_cost import TableCost
from ..files.output_lock import alone
from ..files.storage import read_json, sha256_json, write_atomic
from ..terminal.progress import Progress
from .budgets import Budget
from .candidates import Space, space_of
from .corrections import Corrections, objective_of
from .cuts.cut_space import CutSpace, lost, solved_profile, with_cuts
from .cuts.possible import Cuts, Profile, cuts_of
from .losses import Losses, given_by, known_losses, losses_file, measure_losses
from .methods import CACHE, CUTS, METHODS, RECOVERED, RECOVERY, SOLVED, SOLVED_CUTS
from .quantities import DISK, MEMORY
from .solve import Limit, Table
from .speed.device_times import times_of
from .speed.times import Times

Passes = Sequence[Mapping[str, Any]]


@dataclass
class Spaces:
    """Of the model ``source``, whose weights have the ``fingerprint``.

    Attributes:
        model: as the user named it. text, settings: what recipes are calibrated on, and how much of it.
        directory: of the search; processes share it.
        costs: of each device with a budget of speed. corrections: what trials show of the predictions.
    """

    model: str
    source: WeightSource
    fingerprint: str
    calibration: Calibration
    text: str
    settings: Mapping[str, object]
    budgets: tuple[Budget, ...]
    costs: dict[str, TableCost]
    corrections: Corrections
    directory: Path
    device: str
    progress: Progress
    _found: dict[str, tuple[WeightSource, Space]] = field(default_factory=dict)
    _profiles: dict[str, Profile] = field(default_factory=dict)
    _cut_times: Mapping[str, Times] | None = None

    def of(self, key: str = "") -> Space:
        """The candidates behind the cut, or the one choice of the packaged recipe, that is called ``key``,
        with their losses; measured where they are not known.
        """
        return self._opened(key)[1]

    def source_of(self, key: str) -> WeightSource:
        """The checkpoint of those candidates: what the cut leaves of the model."""
        return self._opened(key)[0]

    def knows(self, recipe: str) -> bool:
        """Whether all that the packaged ``recipe`` gives the model is among the candidates."""
        return given_by(self.source, recipe) is not None

    def is_ready(self, key: str) -> bool:
        """Whether all that :meth:`of` cuts and measures for ``key`` is there already."""
        if key in self._found:
            return True
        cut = key.removesuffix(RECOVERED)
        if cut in SOLVED_CUTS and cut not in self._profiles and read_sealed(self._profile_file) is None:
            return False
        if not (first := self._first(key)):
            return known_losses(self._losses_file(self.source, ())) is not None
        checkpoint = self._folder(first) / "checkpoint"
        if not checkpoint.exists():
            return False
        return known_losses(self._losses_file(WeightSource.open(checkpoint), first)) is not None

    def profile(self, cut: str = SOLVED) -> Profile:
        """What one of :data:`.methods.SOLVED_CUTS` cuts: the same in all processes of a search."""
        if cut not in self._profiles:
            file = self._profile_file
            with alone(file.with_suffix(".lock")):
                found = read_sealed(file)
                if found is None:
                    found = self._solved().as_json
                    write_sealed(file, found)
            self._profiles[cut] = Profile.from_json(found)
        return self._profiles[cut]

    @property
    def _shown(self) -> Corrections:
        """What trials so far say of the predicted rates, which is all that a cut is solved with."""
        return replace(Corrections.before(self.budgets), seconds=self.corrections.seconds)

    @property
    def _profile_file(self) -> Path:
        asked = [f"{one.key} {one.bound!r} {one.watts}" for one in self.budgets]
        for key, factors in sorted(self._shown.seconds.items()):
            asked += [f"{key} {size!r} {factor!r}" for size, factor in sorted(factors.items())]
        key = sha256_json([self.fingerprint, self.calibration.sha256, asked])
        return self.directory / f"profile-{key[:16]}.json"

    def cut_space(self, factor: float = 1.0) -> CutSpace:
        """The candidates of the whole model, cuts among them, which cost ``factor`` times their losses."""
        whole = self.of()
        found = with_cuts(whole, self.source, self._losses(self.source, ()), self.cuts, factor)
        if self._cut_times is None:  # which no factor changes
            self._cut_times = times_of(found.space, self.source, self.budgets, self.costs, self.cuts)
        return replace(found, space=replace(found.space, times=self._cut_times))

    def asked(self, space: Space) -> tuple[Table, list[list[Limit]]]:
        """What is made least, and the limits, with the rates that trials so far have shown."""
        sets = self._shown.limits(space, self.budgets, METHODS[0])
        return space.sizes if objective_of(space, self.budgets) == DISK.name else space.damages, sets

    @property
    def cuts(self) -> Cuts:
        """Those that there may be."""
        return cuts_of(self.source)

    def said(self, cut: str) -> list[str]:
        """What a cut of a method's cuts, a line for each block, where it was solved here."""
        return self.profile(cut).lines(self.cuts) if cut in SOLVED_CUTS else []

    def _solved(self) -> Profile:
        losses = self._losses(self.source, ())

        def measured(profile: Profile) -> float:
            self.progress.note(f"measuring a cut: {profile.line(self.cuts)}")
            passes = profile.passes(self.cuts.multiple)
            return _damage(WeightSource.open(self._pruned(passes)))

        return solved_profile(self.cut_space, self.asked, lambda one: lost(losses, one), measured)

    def _opened(self, key: str) -> tuple[WeightSource, Space]:
        if key not in self._found:
            first = self._first(key)
            source = WeightSource.open(self._pruned(first)) if first else self.source
            given = given_by(source, key) if key in names() else None
            space = space_of(source, self._losses(source, first), given)
            times = times_of(space, source, self.budgets, self.costs)
            before = _damage(source) if first else 0.0
            space = replace(space, times=times, before=before, first=first)
            space = replace(space, cache_damage=self._cache_damage if self.cache_counts(space) else 0.0)
            self._found[key] = source, space
        return self._found[key]

    def cache_counts(self, space: Space) -> bool:
        """Whether what keys and values take is bounded."""
        return space.cache > 0 and any(one.quantity is MEMORY for one in self.budgets)

    @cached_property
    def _cache_damage(self) -> float:
        """Of the whole model, whose keys and values alone are cached in fewer bits."""
        return _damage(WeightSource.open(self._pruned((CACHE,))))

    def _first(self, key: str) -> Passes:
        """The passes that cut the model first, and by which what is left learns."""
        cut = key.removesuffix(RECOVERED)
        passes: Passes = (CUTS[cut],) if cut in CUTS else ()
        if cut in SOLVED_CUTS:
            passes = self.profile(cut).passes(self.cuts.multiple)
        return passes if cut == key else (*passes, RECOVERY)

    def _cutting(self, passes: Passes) -> dict[str, Any]:
        """The recipe of ``passes``."""
        return {"name": "cut", "passes": list(passes), "calibration": dict(self.settings)}

    def _folder(self, passes: Passes) -> Path:
        """Where the checkpoint is that ``passes`` leave."""
        key = sha256_json([self.fingerprint, self._cutting(passes), self.calibration.sha256])
        return self.directory / "cuts" / key[:16]

    def _pruned(self, passes: Passes) -> Path:
        """The checkpoint that ``passes`` leave, made by one of the processes that share the directory."""
        folder = self._folder(passes)
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / "lock"):
            if not (folder / "checkpoint").exists():
                recipe = yaml.safe_dump(self._cutting(passes), sort_keys=False)
                write_atomic(folder / "recipe.yaml", recipe.encode())
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

    def _fingerprint(self, source: WeightSource, first: Passes) -> str:
        return source.reader.fingerprint() if first else self.fingerprint

    def _losses_file(self, source: WeightSource, first: Passes) -> Path:
        """In the directory, for processes elsewhere."""
        named = losses_file(
            self._fingerprint(source, first), source.anatomy, self.calibration, cuts=not first
        )
        return self.directory / named.name

    def _losses(self, source: WeightSource, first: Passes) -> Losses:
        shared = self._losses_file(source, first)
        found = known_losses(shared)
        if found is None:
            fingerprint = self._fingerprint(source, first)
            work = self.directory / "losses" / fingerprint[:16]
            device = choose_device(self.device)
            found = measure_losses(
                source, fingerprint, self.calibration, work, device, self.progress, cuts=not first
            )
            write_sealed(shared, asdict(found))
        return found


def _damage(pruned: WeightSource) -> float:
    """Of the cut itself, in the unit of losses: as the pass measured it on the probe text."""
    steps = read_json(pruned.reader.path / "edgepress.json")["steps"]
    found: dict[str, float] = next((step["damage"] for step in reversed(steps) if step.get("damage")), {})
    # Of unit vectors the squared distance is twice what is missing to a cosine of 1.
    return float(found.get("kl", 2 * found.get("distance", 0.0)))
