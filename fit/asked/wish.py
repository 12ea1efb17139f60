"""``Wish``: what is asked for. What cannot be is refused before anything heavy is imported or made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...benchmarks.quality.subgroups.items import load_slice
from ...compress.model.family import Reads
from ...compress.model.model_names import read_by_model
from ...compress.text.corpus import require_text
from ...compress.text.jsonl_rows import FIELD
from ...devices.energy import NoMeter, find_meter
from ...errors import InputError, require
from ...files.limits import require_seed
from ...runtime.audio.wav_file import sound_files
from ...runtime.images.image_file import image_files
from ..budgets import Budget
from ..figures import no_meter
from ..quantities import ENERGY, QUANTITIES

# By what a model reads, with which option that is given.
OPTIONS: Mapping[Reads, str] = {"text": "--text", "images": "--images", "sounds": "--audio"}
_FILES: Mapping[Reads, Callable[[Path], list[Path]]] = {"images": image_files, "sounds": sound_files}


@dataclass(frozen=True)
class Wish:
    """What is asked for: a model, budgets, and ``text`` (of a model that reads images or hears a folder of
    those, or of sounds with what is said in them), with how much of it is calibrated on.

    ``trials``: of methods that Optuna samples; 0: the usual methods in their order.
    """

    model: str
    budgets: tuple[Budget, ...]
    text: str
    field: str = FIELD
    samples: int = 128
    length: int = 512
    seed: int = 0
    hours: float = 1.0
    threads: int | None = None
    device: str = "auto"
    trials: int = 0

    def check(self) -> None:
        """Refuse what cannot be before anything heavy is imported or made."""
        for module, extra in (("torch", "compress"), ("transformers", "compress"), ("scipy", "fit")):
            require(module, extra)
        if self.trials:
            require("optuna", "search")
        if not self.budgets:
            raise InputError("no budget is given", fix="for example --max-disk 60MB, or --max-kl 0.1")
        for budget in self.budgets:
            if budget.slice is not None:
                require_slice(budget.slice)
        require_seed(self.seed)
        reads = read_by_model(self.model)
        if reads == "text":
            require_text(self.text, self.field)
        else:
            self._check_files(reads)
        from ..speed.device_times import costs_of  # imports torch

        costs_of(self.budgets, self.threads)
        self._refuse_uncounted()

    def _check_files(self, reads: Reads) -> None:
        if reads == "images":
            require("PIL", "images")
        if not Path(self.text).is_dir():
            raise InputError(
                f"{self.model} reads {reads}, and {self.text} is no directory of those",
                fix=f"pass {OPTIONS[reads]} FOLDER",
            )
        _FILES[reads](Path(self.text))
        if self.field != FIELD:
            raise InputError(f"{reads} have no field", fix="leave --field out")

    def _refuse_uncounted(self) -> None:
        """Energy that nothing counts here; other devices say so when they are measured."""
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


def require_slice(name: str) -> None:
    """Refuse a slice that says nothing of a decoder's distributions."""
    if "decoder" not in load_slice(name).kinds:
        raise InputError(f"the slice {name} has no KL of a decoder", fix="take languages, or people")
