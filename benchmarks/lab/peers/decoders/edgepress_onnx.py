"""edgepress itself: compressed by rounding, exported, and run by its own runtime.

Speed does not depend on the values of the weights, so that no calibration is needed here; and the proof of
the exporter is left out, since its tests and the demo run it on the same graphs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..contract import ConversionTask, DecoderVariant, DecodingEngine, EngineSettings, StepwiseEngine

TITLE = "edgepress"
PACKAGES = ()
DISTRIBUTIONS = ("edgepress", "onnxruntime")
VARIANTS = {
    "w4-head8": DecoderVariant("W4, head 8", 4, 8),
    "w4-head4": DecoderVariant("W4, head 4", 4, 4),
    "w2-head4": DecoderVariant("W2, head 4", 2, 4),
    "w4-head8-kv8": DecoderVariant("W4, head 8, cache 8", 4, 8),
    "w4-head4-kv8": DecoderVariant("W4, head 4, cache 8", 4, 4),
}
# Speed does not depend on the scales of a cache: a short text will do.
KV8 = "  - {pass: kv_cache, bits: 8}\n"
CALIBRATION = ("--calibration", "wikipedia", "--samples", "1", "--length", "64")


def convert(task: ConversionTask, variant: str) -> None:
    """``compress`` and ``export`` as a user would call them."""
    weights, head, *cache = variant.upper().replace("HEAD", "").split("-")
    groups = "W8A16-g32" if head == "8" else f"W{head}A16-g{task.group_size}"
    recipe = task.artifact / "recipe.yaml"
    scheme = f"{weights}A16-g{task.group_size}"
    steps = f"passes:\n  - {{pass: rtn, scheme: {scheme}}}\n{KV8 if cache else ''}"
    recipe.write_text(f"name: {variant}\n{steps}embedding: {groups}\n", encoding="utf-8")
    work = task.artifact / "checkpoint"
    edgepress = [sys.executable, "-m", "edgepress"]
    compress = [*edgepress, "compress", str(task.checkpoint), "-r", str(recipe), "-o", str(work), "-q"]
    subprocess.run([*compress, *(CALIBRATION if cache else ())], check=True)
    bundle = ["-o", str(task.artifact / "bundle"), "--no-validate", "-q"]
    subprocess.run([*edgepress, "export", str(work), *bundle], check=True)


def operators(artifact: Path) -> str:
    """Whose operators run the bundle, and with which instructions."""
    from .....benchmarks.records.bundle_subject import operators_of
    from .....runtime.bundle.bundle import Bundle

    return " ".join(filter(None, operators_of(Bundle.open(artifact / "bundle", verify=False)).values()))


def load(artifact: Path, variant: str, settings: EngineSettings) -> DecodingEngine:
    """The bundle as ``open_bundle`` loads it, verified, but without its tokenizer: prompts are token ids, and
    llama.cpp's file has none either.
    """
    from .....runtime.bundle.bundle import Bundle
    from .....runtime.engine.decoder import Decoder

    bundle = Bundle.open(artifact / "bundle", weights_later=True)
    decoder = Decoder.open(bundle, settings.threads)

    def first(ids: Sequence[int]) -> int:
        return int(decoder.prefill(ids, new_tokens=settings.context - len(ids)).argmax())

    return StepwiseEngine(first, lambda token: int(decoder.step(token).argmax()))
