"""``Job``: a compression before its first block is touched: the model, the recipe with what the caller said,
the plan, and the text. Making one checks all that can be checked early.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError
from ..files.disk import require_disk
from ..files.limits import require_seed
from ..files.storage import sha256_json
from ..terminal.progress import Progress
from .pipeline.processes import several_processes
from .recipe_files import no_text
from .text.corpus import text_paths, text_sha256
from .text.jsonl_rows import FIELD

if TYPE_CHECKING:
    from .text.protected_text import ProtectedText

# torch is imported when a job is made, so that this module can be looked at without it.

# Tokens that go through a block at once: enough to keep its products busy, few enough to be a small part of
# the peak of memory.
BATCH_TOKENS = 2048
AUTO = "auto"


@dataclass(frozen=True)
class CalibrationChoice:
    """What the caller said about calibration; None means what the recipe says."""

    source: str | None = None
    samples: int | None = None
    length: int | None = None
    seed: int | None = None
    field: str = FIELD
    chat: str = AUTO
    protect: tuple[ProtectedText, ...] = ()


class Job:
    """Everything that is known before the first block is touched; building one checks all that can be checked
    early.
    """

    def __init__(
        self,
        model: str,
        recipe: str | None,
        scheme: str | None,
        group_size: int | None,
        choice: CalibrationChoice,
        progress: Progress,
        max_time: float | None = None,
        requantize: bool = False,
    ) -> None:
        from .asked_recipe import AskedRecipe
        from .model.models import resolve
        from .model.weights import WeightSource
        from .sample_length import sample_length

        asked = AskedRecipe(recipe, scheme, group_size, calibrated=choice.source is not None)
        self.model = resolve(model, progress, asked.check)
        self.source = WeightSource.open(self.model.path)
        self.recipe = asked.of(self.source.anatomy)
        if max_time is not None:
            from .asked_recipe import limited  # only here: what learns costs a start

            self.recipe = limited(self.recipe, max_time)
        for note in self.recipe.notes:
            progress.note(f"{self.recipe.name}: {note}")
        if choice.source is not None and not self.recipe.calibrated:
            progress.note(f"{self.recipe.name} calibrates nothing: {choice.source} is not read")
        self.choice, self.progress = choice, progress
        settings = self.recipe.calibration
        self.samples = choice.samples or settings.samples
        self.length = sample_length(self.source.anatomy, choice.length or settings.length)
        self.seed = require_seed(settings.seed if choice.seed is None else choice.seed)
        self.batch_size = max(1, BATCH_TOKENS // self.length)
        self.text = choice.source or settings.source
        self.requantize = requantize
        self.plan = self._plan()

    def _plan(self) -> Any:
        from .plan import plan

        made = plan(
            self.source,
            self.recipe,
            name=self.model.name,
            samples=self._read_samples,
            length=self.length,
            batch_size=self.batch_size,
            requantize=self.requantize,
            rounded=self.model.rounded,
        )
        return replace(made, notes=(*made.notes, *self._protection()))

    @property
    def _read_samples(self) -> int:
        """Those of the text, and as many as the text of protected groups is worth."""
        from .text.protected_text import SHARE

        return self.samples + (math.ceil(SHARE * self.samples) if self.choice.protect else 0)

    def _protection(self) -> list[str]:
        """What the plan says of protected groups."""
        from .text.protected_text import SHARE

        named = [f"{one.name} ({len(one.texts)} groups)" for one in self.choice.protect]
        if not named:
            return []
        if not self.recipe.calibrated:
            raise InputError(
                f"{self.recipe.name} reads no text, so that it can protect none", fix="take gptq or allocate"
            )
        solved = any(name == "allocate" for name, _ in self.recipe.steps)
        note = f"protects {', '.join(named)}: calibration reads {SHARE:g} × as much of it as of its own text"
        return [note + ("; allocate spares the group that loses most" if solved else "")]

    def require_room(self, target: Path, device_name: str, most: float | None) -> int:
        """Refuse what does not fit the disk of ``target``, or the memory of the device and ``most`` GB of it;
        returns how much memory is there.
        """
        from .memory_budget import available_memory, require_memory
        from .pipeline.device import choose_device

        available = available_memory(choose_device(device_name), most)
        if not several_processes():  # which share the model
            sizes = self._read_samples, self.length, self.batch_size
            require_memory(self.source, self.recipe, *sizes, available)
        require_disk(target, self.plan.disk)
        return available

    def calibration(self) -> Any:
        """The token batches, or None when no pass asks for statistics."""
        from ..runtime.text.tokenizer import Tokenizer
        from .model.family import read_by
        from .sample_length import text_inputs
        from .text.calibration import calibration_from

        reads = read_by(self.source.anatomy)
        if not self.recipe.calibrated:
            if (self.choice.field, self.choice.chat) != (FIELD, AUTO):
                raise InputError(
                    f"{self.recipe.name} reads no text, so there is no field and no chat template to choose",
                    fix="leave --field and --chat out, or give --text and a recipe that reads it",
                )
            return None
        if self.text is None:
            raise no_text(self.recipe.name, reads=reads)
        if reads != "text":
            return self._files(self.text, reads)
        return calibration_from(
            self.text,
            Tokenizer.open(self.model.path),
            samples=self.samples,
            length=self.length,
            seed=self.seed,
            field=self.choice.field,
            batch_size=self.batch_size,
            chat=self.choice.chat,  # type: ignore[arg-type]
            protect=self.choice.protect,
            **text_inputs(self.source.anatomy),
        )

    def _files(self, folder: str, what: str) -> Any:
        """``what`` the model reads in ``folder``: images or sounds."""
        from .files_as_calibration import calibration_of_files

        if (self.choice.field, self.choice.chat) != (FIELD, AUTO) or self.choice.protect:
            raise InputError(
                f"{self.model.name} reads {what}, which have no field, no chat template and no groups",
                fix="leave --field, --chat and --protect out",
            )
        return calibration_of_files(
            self.source, folder, samples=self.samples, seed=self.seed, batch_size=self.batch_size
        )

    def paths(self) -> list[str | Path]:
        """What the recipe and the name of the model turned out to read."""
        return [self.model.path, *text_paths(*self.recipe.paths)]

    def reads(self) -> dict[str, str]:
        """SHA-256, by path, of the checkpoints and texts that passes read beside model and calibration."""
        from .model.checkpoint.reader import content_hash

        steps = [step for _, step in self.recipe.steps]
        found = {str(path): content_hash(path) for step in steps for path in step.reads()}
        corpora = {getattr(step, "corpus", None) for step in steps} - {None}
        return found | {str(corpus): text_sha256(str(corpus)) for corpus in corpora}

    def key(self, fingerprint: str, calibration: Any, device: str, reads: dict[str, str]) -> str:
        """Identity of the work: equal keys give equal bytes."""
        from .text.probe_text import SHA256

        known = {
            "version": __version__,
            "source": fingerprint,
            "recipe": self.recipe.as_dict(),
            "calibration": None if calibration is None else calibration.sha256,
            "device": device,
            "probe": SHA256,
        }
        protected = [one.sha256 for one in self.choice.protect]
        known |= {"protect": protected} if protected else {}
        return sha256_json(known | ({"reads": reads} if reads else {}))
