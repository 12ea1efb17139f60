"""edgepress itself: compressed by rounding, exported, and run by its own runtime."""

import subprocess
import sys
from pathlib import Path

from ..contract import EmbedSentences, EncoderConversionTask

TITLE = "edgepress"
PACKAGES = ()
DISTRIBUTIONS = ("edgepress", "onnxruntime")
# By variant: its recipe, if it has one.
VARIANTS = {
    "fp32": None,
    "W8A8": "name: w8a8\npasses:\n  - {pass: w8a8}\n",
    "W4A16-g64": "name: w4\npasses:\n  - {pass: rtn, scheme: W4A16-g64}\n",
}


def convert(task: EncoderConversionTask, variant: str) -> None:
    """``compress`` and ``export`` as a user would call them."""
    folder, source = task.artifact / variant, task.checkpoint
    if (folder / "bundle").exists():
        return
    edgepress, recipe = [sys.executable, "-m", "edgepress"], VARIANTS[variant]
    folder.mkdir(parents=True, exist_ok=True)
    if recipe is not None:
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
        source = folder / "checkpoint"
        options = ["-r", str(folder / "recipe.yaml"), "-o", str(source), "-q"]
        subprocess.run([*edgepress, "compress", str(task.checkpoint), *options], check=True)
    subprocess.run([*edgepress, "export", str(source), "-o", str(folder / "bundle"), "-q"], check=True)


def load(artifact: Path, variant: str, threads: int) -> EmbedSentences:
    """The bundle in the encoder of the runtime."""
    from .....runtime.bundle.bundle import Bundle
    from .....runtime.engine.encoder import Encoder

    return Encoder.open(Bundle.open(artifact / variant / "bundle"), threads).encode
