"""``Job``: what is known of a wish before anything is measured."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..compress.model.anatomy import Anatomy
from ..compress.model.models import ResolvedModel, resolve
from ..compress.model.pooling import pooling_of
from ..compress.model.weights import WeightSource
from ..compress.text.calibration import Calibration
from ..compress.text.corpus import CORPORA
from ..errors import GateFailed, InputError
from ..terminal.progress import Progress
from .asked.given import read_given
from .asked.wish import Wish
from .budgets import Budget, refuse_other_kinds
from .candidates import Space, model_kind, space_of
from .choices import Choices
from .corrections import Corrections
from .cuts.cut_space import CutSpace, with_cuts
from .cuts.possible import cuts_of
from .methods import METHODS
from .planned_time import require_room_to_measure
from .quantities import DISK, ENCODER, MEMORY
from .search import ROUNDS, Search
from .setting import Setting
from .spaces import Spaces
from .speed.device_times import costs_of

_BY_SCHEME = "compress and export it: edgepress compress MODEL --scheme W4A16 -o OUT"
# Of models without figures: whether one is so, what it is, why that is in the way, and the way out.
_WITHOUT_FIGURES: tuple[tuple[Callable[[Anatomy], bool], str, str, str], ...] = (
    (
        lambda anatomy: anatomy.has_experts,
        "is a mixture of experts, which fit has no figures for",
        "what a token reads depends on the experts that it goes to",
        _BY_SCHEME,
    ),
    (
        lambda anatomy: anatomy.has_latents,
        "has latent attention, which fit has no figures for",
        "",
        _BY_SCHEME,
    ),
)


class Job:
    """What is known before anything is measured."""

    def __init__(self, wish: Wish, directory: Path, progress: Progress) -> None:
        self.wish, self.directory, self.progress = wish, directory, progress
        self.resolved = resolve(wish.model, progress)
        self.source = WeightSource.open(self.resolved.path)
        require_known(self.resolved, self.source, wish.budgets)
        require_room_to_measure(self.source, wish.samples, wish.length, wish.device)
        given = read_given(wish, self.resolved.path, self.source, directory, progress)
        self.texts, self.length, self.windows = given.texts, given.length, given.windows
        self.calibration: Calibration = given.calibration
        reader = self.source.reader
        with progress.task("hashing the model", sum(map(reader.nbytes, reader.shapes))) as task:
            self.fingerprint = reader.fingerprint(task.advance)

    @property
    def settings(self) -> dict[str, Any]:
        """The calibration section of recipes."""
        named = {"source": self.texts.calibration} if self.texts.calibration in CORPORA else {}
        return {**named, "samples": self.wish.samples, "length": self.length, "seed": self.wish.seed}

    def search(self, ends: float) -> Search:
        """With the losses measured; before that, budgets of bytes that nothing keeps are refused."""
        if not self.wish.trials:  # these may cut more from the model first
            refuse_impossible(self.cut_space(space_of(self.source, None)), self.wish.budgets)
        spaces = self.spaces()
        spaces.of()
        setting = Setting(
            self.wish.model,
            self.fingerprint,
            self.texts,
            {"length": self.length},
            self.windows,
            self.wish.budgets,
            self.wish.threads,
            self.wish.device,
        )
        folder = self.directory / "trials"
        folder.mkdir(exist_ok=True)
        most = self.wish.trials or ROUNDS * len(METHODS)
        choices = Choices(spaces, setting.budgets, self.settings, spaces.corrections)
        return Search(choices, setting, folder, ends, self.progress, most)

    def spaces(self) -> Spaces:
        """The candidates, not measured yet."""
        wish = self.wish
        return Spaces(
            wish.model,
            self.source,
            self.fingerprint,
            self.calibration,
            self.texts.calibration,
            self.settings,
            wish.budgets,
            costs_of(wish.budgets, wish.threads),
            self.corrections(),
            self.directory,
            wish.device,
            self.progress,
        )

    def cut_space(self, whole: Space) -> CutSpace:
        """The candidates, cuts among them, whose losses are not known."""
        return with_cuts(whole, self.source, None, cuts_of(self.source))

    def corrections(self) -> Corrections:
        """Before anything was built."""
        return Corrections.before(self.wish.budgets)


def refuse_impossible(found: CutSpace, budgets: Sequence[Budget]) -> None:
    """Refuse budgets of bytes that the smallest choice exceeds."""
    space, least = found.space, found.smallest
    for budget in budgets:
        needed = {DISK: space.shipped, MEMORY: space.resident}.get(budget.quantity)
        if needed is not None and needed + least > budget.bound:
            raise GateFailed(
                f"no choice keeps {budget.shown()}",
                why=f"with every part at its smallest, and cut as far as may be, it is "
                f"{budget.quantity.shown(needed + least)}",
                fix=f"give more than that: {budget.quantity.option}; or take a smaller model",
            )


def require_known(resolved: ResolvedModel, source: WeightSource, budgets: Sequence[Budget]) -> None:
    """Refuse models, and budgets of them, that there are no figures for."""
    name, anatomy = resolved.name, source.anatomy
    for applies, what, why, fix in _WITHOUT_FIGURES:
        if applies(anatomy):
            raise InputError(f"{name} {what}", why=why, fix=fix)
    kind = model_kind(anatomy)
    refuse_other_kinds(budgets, kind, name)
    if kind == ENCODER and anatomy.tower is None and pooling_of(resolved.path).mode is None:
        raise InputError(
            f"{name} has no sentence embeddings: no file beside it says how to pool",
            fix="use a sentence-transformers model, with modules.json and 1_Pooling/config.json",
        )
    if source.schemes or source.reader.coded.quantized():
        raise InputError(f"{name} is quantized already", fix="give the model that it was made of")
