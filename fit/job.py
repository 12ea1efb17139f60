"""``Wish`` and ``Job``: what is asked for, and what is known of it before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..benchmarks.quality.subgroups.items import load_slice
from ..compress.model.models import resolve
from ..compress.model.weights import WeightSource
from ..compress.text.calibration import Calibration, calibration_from
from ..compress.text.corpus import CORPORA, read_corpus, require_text
from ..devices.energy import NoMeter, find_meter
from ..errors import GateFailed, InputError, require
from ..limits import require_seed
from ..runtime.text.tokenizer import Tokenizer
from ..terminal import Progress
from .asked.kept_calibration import kept_calibration
from .asked.texts import Texts, require_groups, split_text, windows_of
from .budgets import Budget
from .candidates import Space, model_kind, space_of
from .corrections import Corrections
from .figures import no_meter
from .known_models import require_known
from .latency import costs_of
from .methods import METHODS
from .quantities import ACCURACY, DISK, ENCODER_DECODER, ENERGY, MEMORY, QUANTITIES
from .search import ROUNDS, Search
from .spaces import Spaces
from .trials import Setting

_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Wish:
    """What is asked for: a model, budgets, and text with how much of it is calibrated on.

    ``trials``: of methods that Optuna samples; 0: the usual methods in their order.
    """

    model: str
    budgets: tuple[Budget, ...]
    text: str
    field: str = "text"
    samples: int = 128
    length: int = 512
    seed: int = 0
    hours: float = 1.0
    threads: int | None = None
    device: str = "auto"
    trials: int = 0

    def check(self) -> None:
        """Refuse what cannot be before anything heavy is imported or made.

        Raises:
            InputError: no budget, or one of the speed of a device without a kernel table, or of a slice that
                has no KL.
            UnknownName: no such slice.
            MissingDependency: a package that this needs.
            EdgepressError: no such text.
        """
        for module, extra in (("torch", "compress"), ("transformers", "compress"), ("scipy", "fit")):
            require(module, extra)
        if self.trials:
            require("optuna", "search")
        if not self.budgets:
            raise InputError("no budget is given", fix="for example --max-disk 60MB, or --max-kl 0.1")
        for budget in self.budgets:
            if budget.slice is not None:
                require_slice(budget.slice)
        costs_of(self.budgets, self.threads)
        self._refuse_uncounted()
        require_seed(self.seed)
        require_text(self.text)

    def _refuse_uncounted(self) -> None:
        """Energy that nothing counts here; other devices say so when they are measured.

        Raises:
            MissingDependency: says why, and how it is modelled.
        """
        for one in self.budgets:
            if one.quantity is ENERGY and one.watts is None and one.device == "here":
                found = find_meter("cpu")
                if isinstance(found, NoMeter):
                    raise no_meter(one, found.reason)

    @property
    def as_json(self) -> dict[str, Any]:
        """For processes in other directories: paths are absolute."""
        paths = {
            name: str(Path(value).absolute())
            for name, value in (("model", self.model), ("text", self.text))
            if Path(value).exists()
        }
        budgets = [[one.quantity.name, one.bound, one.device, one.slice, one.watts] for one in self.budgets]
        return {**asdict(replace(self, budgets=())), **paths, "budgets": budgets}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Wish:
        """What :attr:`as_json` gave."""
        quantities = {one.name: one for one in QUANTITIES}
        budgets = tuple(Budget(quantities[name], *rest) for name, *rest in found["budgets"])
        return cls(**{**found, "budgets": budgets})


class Job:
    """What is known before anything is measured."""

    def __init__(self, wish: Wish, directory: Path, progress: Progress) -> None:
        self.wish, self.directory, self.progress = wish, directory, progress
        self.resolved = resolve(wish.model, progress)
        self.source = WeightSource.open(self.resolved.path)
        anatomy = self.source.anatomy
        require_known(self.resolved, self.source, wish.budgets)
        self.length = min(wish.length, anatomy.max_positions)
        tokenizer = Tokenizer.open(self.resolved.path)
        paired = model_kind(anatomy) == ENCODER_DECODER
        self.texts: Texts = split_text(wish.text, wish.field, directory / "text", paired=paired)
        if self.texts.repeated:
            progress.note(f"{self.texts.repeated} documents of the text are there already, and left out")
        if any(one.slice == "tasks" for one in wish.budgets):
            require_groups(self.texts.held_out)
        self.windows = self._windows(tokenizer)
        self.calibration: Calibration = self._calibration(tokenizer)
        with progress.task("hashing the model", 1) as task:
            self.fingerprint = self.source.reader.fingerprint()
            task.advance(1)

    def _calibration(self, tokenizer: Tokenizer) -> Calibration:
        wish, anatomy = self.wish, self.source.anatomy
        settings: dict[str, Any] = {"samples": wish.samples, "length": self.length, "seed": wish.seed}
        settings["batch_size"] = max(1, _BATCH_TOKENS // self.length)
        return kept_calibration(
            self.source,
            self.texts.calibration,
            settings,
            lambda: calibration_from(
                self.texts.calibration,
                tokenizer,
                kind=anatomy.kind,
                vocab_size=anatomy.vocab_size,
                labels=anatomy.classifier.labels if anatomy.classifier and anatomy.labels_texts else (),
                **settings,
            ),
        )

    def _windows(self, tokenizer: Tokenizer) -> int:
        """Of a decoder's text, as many as both parts have.

        Raises:
            InputError: a budget of accuracy, and text without labels.
        """
        parts = (self.texts.development, self.texts.held_out)
        if self.source.anatomy.kind == "decoder":
            return min(windows_of(path, tokenizer, self.length) for path in parts)
        needed = [one for one in self.wish.budgets if one.quantity is ACCURACY]
        labelled = self.source.anatomy.labels_texts and all(read_corpus(str(path)).labels for path in parts)
        if needed and not labelled:
            raise InputError(
                f"{needed[0].shown()}: the text has no labels that this model gives",
                fix='give a .jsonl file with rows like {"text": "…", "label": "…"}',
            )
        return 1

    @property
    def settings(self) -> dict[str, Any]:
        """The calibration section of recipes."""
        named = {"source": self.texts.calibration} if self.texts.calibration in CORPORA else {}
        return {**named, "samples": self.wish.samples, "length": self.length, "seed": self.wish.seed}

    def search(self, ends: float) -> Search:
        """With the losses measured; before that, budgets of bytes that nothing keeps are refused.

        Raises:
            GateFailed: with the nearest.
        """
        if not self.wish.trials:  # these may cut something from the model first
            refuse_impossible(space_of(self.source, None), self.wish.budgets)
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
        return Search(spaces, setting, self.settings, folder, ends, self.progress, most, self.corrections())

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
            self.directory,
            wish.device,
            self.progress,
        )

    def corrections(self) -> Corrections:
        """Before anything was built."""
        return Corrections(watts={one.key: one.watts for one in self.wish.budgets if one.watts is not None})


def require_slice(name: str) -> None:
    """Refuse a slice that says nothing of a decoder's distributions.

    Raises:
        UnknownName: there is none of this name. InputError: it has no KL.
    """
    if "decoder" not in load_slice(name).kinds:
        raise InputError(f"the slice {name} has no KL of a decoder", fix="take languages, or people")


def refuse_impossible(space: Space, budgets: Sequence[Budget]) -> None:
    """Refuse budgets of bytes that the smallest choice exceeds.

    Raises:
        GateFailed: names the least bound that a choice keeps.
    """
    least = sum(min(row) for row in space.sizes)
    for budget in budgets:
        needed = {DISK: space.shipped, MEMORY: space.resident}.get(budget.quantity)
        if needed is not None and needed + least > budget.bound:
            raise GateFailed(
                f"no choice keeps {budget.shown()}",
                why=f"with every part at its smallest it is {budget.quantity.shown(needed + least)}",
                fix=f"give more than that: {budget.quantity.option}; or take a smaller model",
            )
