"""edgepress itself: compressed by rounding, exported, and run by its own runtime.

Speed does not depend on the values of the weights, so that no calibration is needed here; and the proof of
the exporter is left out, since its tests and the demo run it on the same graphs.
"""

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
    "w4-head8-kv16": DecoderVariant("W4, head 8, cache 16", 4, 8),
    "w4-head8-kv8": DecoderVariant("W4, head 8, cache 8", 4, 8),
    "w3-head8": DecoderVariant("W3, head 8", 3, 8),
    "w2-head8": DecoderVariant("W2, head 8", 2, 8),
    "w4-head4": DecoderVariant("W4, head 4", 4, 4),
    "w3-head4": DecoderVariant("W3, head 4", 3, 4),
    "w2-head4": DecoderVariant("W2, head 4", 2, 4),
    "w3-head3": DecoderVariant("W3, head 3", 3, 3),
    "w4-head8-standard": DecoderVariant("W4, head 8, standard operators", 4, 8),
}
# Options of ``export`` by the end of a variant's name.
OPTIONS = {"kv16": ("--kv", "fp16"), "kv8": (), "standard": ("--for", "standard"), "": ()}
# Speed does not depend on the scales of a cache: a short text will do.
KV8 = "  - {pass: kv_cache, bits: 8}\n"
CALIBRATION = ("--calibration", "wikipedia", "--samples", "1", "--length", "64")


def convert(task: ConversionTask, variant: str) -> None:
    """``compress`` and ``export`` as a user would call them."""
    weights, head, form = f"{variant}-".split("-")[:3]
    bits = head.removeprefix("head")
    groups = f"W{bits}A16-g{32 if bits == '8' else task.group_size}"
    recipe = task.artifact / "recipe.yaml"
    scheme = f"{weights.upper()}A16-g{task.group_size}"
    steps = f"passes:\n  - {{pass: rtn, scheme: {scheme}}}\n{KV8 if form == 'kv8' else ''}"
    recipe.write_text(f"name: {variant}\n{steps}embedding: {groups}\n", encoding="utf-8")
    work = task.artifact / "checkpoint"
    edgepress = [sys.executable, "-m", "edgepress"]
    compress = [*edgepress, "compress", str(task.checkpoint), "-r", str(recipe), "-o", str(work), "-q"]
    subprocess.run([*compress, *(CALIBRATION if form == "kv8" else ())], check=True)
    bundle = ["-o", str(task.artifact / "bundle"), "--no-validate", "-q", *OPTIONS[form]]
    subprocess.run([*edgepress, "export", str(work), *bundle], check=True)


def operators(artifact: Path) -> str:
    """Whose operators run the bundle, and with which instructions."""
    from .....benchmarks.records.bundle_subject import operators_of
    from .....runtime.bundle.bundle import Bundle

    return " ".join(filter(None, operators_of(Bundle.open(artifact / "bundle", verify=False)).values()))


def load(artifact: Path, variant: str, settings: EngineSettings) -> DecodingEngine:
    """The bundle as a user opens it, verified, with its tokenizer."""
    from .....runtime.api import TextModel
    from .....runtime.bundle.bundle import Bundle

    model = TextModel(Bundle.open(artifact / "bundle", weights_later=True), threads=settings.threads)
    decoder, _ = model.decoder, model.tokenizer

    def first(ids: Sequence[int]) -> int:
        return int(decoder.prefill(ids, new_tokens=settings.context - len(ids)).argmax())

    return StepwiseEngine(first, lambda token: int(decoder.step(token).argmax()))
