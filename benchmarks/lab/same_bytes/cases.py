"""What is compressed and exported: the recipes of ``recipes.yaml`` on the models, as a list of cases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .pico_families import HELD_BACK, MODELS
from .pico_kinds import HEARS, READ_IMAGES

RECIPES = Path(__file__).with_name("recipes.yaml")
# A decoder, an encoder, a classifier and a mixture are what options are tried on: of the latter two, those of
# the passes that treat them in their own way.
SAMPLE = {
    "llama": ("",),
    "bert": ("",),
    "bert-classifier": ("distill", "rtn", "layers", "narrow", "w8a8", "vocabulary"),
    "qwen3_moe": ("experts", "gptq", "rtn", "awq", "layers", "allocate"),
}
# Results of these recipes are exported to ONNX, whatever the model; llama's and bert's of all others are too.
EXPORTED = ("rtn", "w8a8", "gptq", "narrow", "kv_cache")
EXPORTED_MODELS = ("llama", "bert")
CALIBRATED: dict[str, Any] = {"calibration": "TEXT", "samples": 16, "length": 32, "device": "cpu"}
DEMO: dict[str, Any] = {"calibration": "wikipedia", "samples": 8, "length": 64, "device": "cpu"}


@dataclass(frozen=True)
class Case:
    """One compression and its exports.

    Attributes:
        passes: of the recipe that is written; empty where ``options`` name one.
        options: of ``compress_model``. TEXT, IMAGES, SOUNDS, LABELLED, CHATS, MODELS and KEPT in them and in
            the recipe are paths of the folder that the run works in.
        exports: keyword arguments of ``export_bundle``, one mapping an export.
        again: the scheme that a GGUF file among the exports is compressed with once more.
    """

    name: str
    model: str
    passes: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    exports: list[dict[str, Any]] = field(default_factory=list)
    again: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)


def pico_cases() -> list[Case]:
    """Every pass on every model, the options on a sample of them, and the single ones."""
    found = yaml.safe_load(RECIPES.read_text(encoding="utf-8"))
    every = [name for name in MODELS if name not in HELD_BACK]
    cases = [
        *_product(found["every"], every),
        *_product(found["packaged"], list(SAMPLE), "packaged-"),
    ]
    for model, passes in SAMPLE.items():
        own = {name: recipe for name, recipe in found["options"].items() if name.startswith(passes)}
        cases += _product(own, [model])
    cases += [
        Case(f"constants/{name}", "llama", passes, CALIBRATED) for name, passes in found["constants"].items()
    ]
    return cases + [_single(f"single/{name}", entry, CALIBRATED) for name, entry in found["single"].items()]


def demo_cases() -> list[Case]:
    """A few cheap recipes on the two demo models."""
    found = yaml.safe_load(RECIPES.read_text(encoding="utf-8"))["demo"]
    return [_single(f"demo/{name}", entry, DEMO) for name, entry in found.items()]


def _product(recipes: dict[str, Any], models: Sequence[str], prefix: str = "") -> Iterator[Case]:
    for model in models:
        for name, recipe in recipes.items():
            exported = model in EXPORTED_MODELS or name in EXPORTED
            exports = [{"format": "onnx"}] if exported else []
            packaged = isinstance(recipe, str)
            read = {"calibration": "IMAGES"} if MODELS[model][0] in READ_IMAGES else {}
            read |= {"calibration": "SOUNDS"} if MODELS[model][0] in HEARS else {}
            options = CALIBRATED | read | ({"recipe": recipe} if packaged else {})
            yield Case(f"{model}/{prefix}{name}", model, [] if packaged else recipe, options, exports)


def _single(name: str, entry: dict[str, Any], options: dict[str, Any]) -> Case:
    exports = [
        {"format": one} if isinstance(one, str) else {"format": "onnx"} | one
        for one in entry.get("exports", [])
    ]
    recipe = {"embedding": entry["embedding"]} if "embedding" in entry else {}
    return Case(
        name=name,
        model=entry["model"],
        passes=entry.get("passes", []),
        options=options | entry.get("options", {}),
        exports=exports,
        again=entry.get("again"),
        recipe=recipe,
    )
