"""The whole chain on two small real models, through the public API alone.

MiniLM becomes versions of 8 and 4 bits, and SmolLM2 of 8, 4 and 3. Each is compressed, exported to ONNX and
compared with the fp32 export of the original on held-out text; last, all of a model take turns being timed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError, OutputExists
from ...files.disk import make_folder
from ...files.output_lock import OutputLock
from ...terminal.progress import Progress, Silent
from .demo_plan import FULL, MODELS, DemoModel, DemoSize
from .model_steps import ModelSteps
from .resumable import StepProgress, run_steps


@dataclass(frozen=True)
class DemoResult:
    """What the demo made: ``bundles`` maps ``model/recipe`` to a compressed bundle."""

    runs: tuple[Path, ...]
    report: Path
    bundles: dict[str, Path]
    skipped: tuple[str, ...]


def run_demo(
    output: Path | str = "runs/demo",
    *,
    models: Sequence[DemoModel] = MODELS,
    size: DemoSize = FULL,
    notes: bool = False,
    progress: Progress | None = None,
) -> DemoResult:
    """Run what is not there yet and write ``report.html``; the same call again skips what it finds whole.
    With ``notes`` each step says its plan and results as well.
    """
    from ..page.report import write_report

    root, progress = Path(output), progress or Silent()
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is not a directory", fix="choose another output")
    make_folder(root)
    inner = progress if notes else StepProgress(progress)
    chains = [ModelSteps(model, size, root, inner) for model in models]
    steps = [step for chain in chains for step in chain.steps()]
    runs = tuple(chain.record for chain in chains)
    bundles = {f"{c.model.name}/{v.recipe}": c.bundle(v) for c in chains for v in c.model.versions}
    with _alone(root):
        page, journal = root / "report.html", root / "demo.json"
        if page.exists() and not journal.exists():
            raise OutputExists(f"{page} is not of a demo, and stays as it is", fix="choose another output")
        skipped = run_steps(steps, journal, progress)
        report = write_report(runs, page, overwrite=True)
    return DemoResult(runs, report, bundles, tuple(skipped))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep two demos from writing to one directory."""
    lock = OutputLock(root / ".lock")
    if not lock.acquire():
        raise InputError(
            f"another demo is running in {root}", fix="wait for it to end, or choose another output"
        )
    try:
        yield
    finally:
        lock.release()
