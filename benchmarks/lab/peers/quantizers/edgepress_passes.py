"""edgepress itself: recipes, applied to the same tokens."""

from __future__ import annotations

import json
from typing import Any

from ..contract import CompressionTask, QuantizerVariant

TITLE = "edgepress"
PACKAGES = ()
DISTRIBUTIONS = ("edgepress", "torch")
SAMPLES, LENGTH = 16, 512
ALLOCATED = (3.0, 3.5, 4.0)  # budgets, in bits a weight

_LEARNED = {"pass": "autoround", "iterations": 20}
_REFINED = {"pass": "gptq", "refinements": 2}
_FOLDED = {"pass": "awq", "quantize": False}
_TUNE, _TUNE_LONG = {"pass": "tune"}, {"pass": "tune", "epochs": 4}
_RECIPES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "gptq": ("GPTQ", [{"pass": "gptq"}]),
    "gptq-corrected": ("corrected GPTQ, refined", [{**_REFINED, "correction": 1}]),
    "gptq-tune": ("GPTQ, refined, then tune", [_REFINED, _TUNE]),
    "gptq-autoround-tune": ("GPTQ, AutoRound of 20 iterations, then tune", [_REFINED, _LEARNED, _TUNE]),
    "gptq-corrected-tune-4": (
        "corrected GPTQ, refined, then tune for four epochs",
        [{**_REFINED, "correction": 1}, _TUNE_LONG],
    ),
    "awq-gptq-tune": ("AWQ, GPTQ, then tune", [_FOLDED, _REFINED, _TUNE]),
    "awq-gptq-tune-4": ("AWQ, GPTQ, then tune for four epochs", [_FOLDED, _REFINED, _TUNE_LONG]),
    "awq": ("AWQ", [{"pass": "awq"}]),
    "autoround": ("AutoRound, 20 iterations", [_LEARNED]),
    "autoround-low": (
        "AutoRound, 20 iterations, a sequence at a time",
        [{**_LEARNED, "low_memory": True}],
    ),
    "autoround-tune": ("AutoRound, 20 iterations, then tune", [_LEARNED, _TUNE]),
    "rtn": ("RTN", [{"pass": "rtn"}]),
    "hqq": ("HQQ", [{"pass": "hqq", "power": 2}]),
    "smoothquant": ("SmoothQuant", [{"pass": "smoothquant"}]),
}
# What is worth its time at each width.
_AT = {
    4: ("gptq", "awq-gptq-tune-4", "awq", "autoround", "autoround-low", "autoround-tune", "rtn", "hqq"),
    3: (
        "gptq",
        "gptq-corrected",
        "gptq-tune",
        "gptq-autoround-tune",
        "awq-gptq-tune",
        "awq-gptq-tune-4",
        "rtn",
        "hqq",
    ),
    2: ("gptq", "gptq-tune", "gptq-corrected-tune-4", "rtn"),
}
_DATALESS, _ASYMMETRIC = ("rtn", "hqq"), ("hqq",)


def _variant(name: str, bits: int, **more: Any) -> QuantizerVariant:
    calibrated, zero_bits = name not in _DATALESS, bits if name in _ASYMMETRIC else 0
    return QuantizerVariant(_RECIPES[name][0], bits, zero_bits=zero_bits, calibrated=calibrated, **more)


VARIANTS = (
    {f"w{bits}-{name}": _variant(name, bits) for bits, names in _AT.items() for name in names}
    | {f"w8a8-{name}": _variant(name, 8, group_size=None, activations=8) for name in ("rtn", "smoothquant")}
    | {
        f"{budget:g}-bits-allocate": QuantizerVariant("AWQ, allocate with GPTQ, then tune", 8, budget=budget)
        for budget in ALLOCATED
    }
)


def passes(variant: str) -> list[dict[str, Any]]:
    """The passes of a variant, as a recipe lists them."""
    chosen = VARIANTS[variant]
    if chosen.budget is not None:
        fold = {**_FOLDED, "scheme": "W3A16-g64" if chosen.budget < 4 else "W4A16-g64"}
        return [fold, {"pass": "allocate", "bits": chosen.budget, "using": _REFINED}, _TUNE_LONG]
    name = variant.split("-", 1)[1]
    scheme = "W8A8" if chosen.activations == 8 else f"W{chosen.bits}A16"
    scheme += "_ASYM" if chosen.zero_bits else ""
    scheme += f"-g{chosen.group_size}" if chosen.group_size else ""
    return [step if step["pass"] == "tune" else {**step, "scheme": scheme} for step in _RECIPES[name][1]]


def quantize(task: CompressionTask, variant: str) -> None:
    """Compress into ``output``; the checkpoint is evaluated as it is."""
    from .....compress.api import compress_model

    chosen = VARIANTS[variant]
    recipe = task.output / "recipe.yaml"  # JSON is YAML
    recipe.write_text(json.dumps({"name": variant, "passes": passes(variant)}), encoding="utf-8")
    compress_model(
        str(task.checkpoint),
        recipe=str(recipe),
        output=task.result,
        calibration="wikipedia" if chosen.calibrated else None,
        samples=SAMPLES if chosen.calibrated else None,
        length=LENGTH if chosen.calibrated else None,
    )
