"""edgepress itself: recipes, applied to the same tokens."""

from __future__ import annotations

import json
from typing import Any

from ._contract import Task, Variant

TITLE = "edgepress"
PACKAGES = ()
BUILD: dict[str, str] = {}
ENVIRONMENT: dict[str, str] = {}
DISTRIBUTIONS = ("edgepress", "torch")
SAMPLES, LENGTH = 16, 512

_REFINED = {"correction": 1.0, "sequential": True, "refinements": 4}
_PASSES: dict[str, list[dict[str, Any]]] = {
    "rtn": [{"pass": "rtn"}],
    "hqq": [{"pass": "hqq"}],
    "gptq": [{"pass": "gptq"}],
    "gptq-refined": [{"pass": "gptq", **_REFINED}],
    "awq": [{"pass": "awq"}],
    "awq-gptq": [{"pass": "awq", "quantize": False}, {"pass": "gptq", **_REFINED}],
    "smoothquant": [{"pass": "smoothquant"}],
}
_METHODS = {
    "rtn": "RTN",
    "hqq": "HQQ",
    "gptq": "GPTQ",
    "gptq-refined": "GPTQ, refined",
    "awq": "AWQ",
    "awq-gptq": "AWQ folded, then GPTQ, refined",
    "smoothquant": "SmoothQuant",
}
_DATALESS = ("rtn", "hqq")
VARIANTS = {
    f"w{bits}-{name}": Variant(_METHODS[name], bits, calibrated=name not in _DATALESS)
    for bits in (4, 3, 2)
    for name in ("gptq", "gptq-refined", "awq", "awq-gptq", "rtn", "hqq")
} | {
    f"w8a8-{name}": Variant(
        _METHODS[name], 8, group_size=None, activations=8, calibrated=name not in _DATALESS
    )
    for name in ("rtn", "smoothquant")
}


def quantize(task: Task, variant: str) -> None:
    """Compress into ``output``; the checkpoint is evaluated as it is."""
    from ....compress.api import compress_model

    chosen = VARIANTS[variant]
    width, name = variant.split("-", 1)
    scheme = width.upper() if width == "w8a8" else f"{width.upper()}A16-g{chosen.group_size}"
    passes = [{**step, "scheme": scheme} for step in _PASSES[name]]
    recipe = task.output / "recipe.yaml"  # JSON is YAML
    recipe.write_text(json.dumps({"name": variant, "passes": passes}), encoding="utf-8")
    compress_model(
        str(task.checkpoint),
        recipe=str(recipe),
        output=task.output / "checkpoint",
        calibration="wikipedia" if chosen.calibrated else None,
        samples=SAMPLES if chosen.calibrated else None,
        length=LENGTH if chosen.calibrated else None,
    )
