"""Whether recipes still may say what they could: every option of every pass, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from .... import plan_model
from .refusals import refusal

OPTIONS = Path(__file__).with_name("options.yaml")


def key_hashes(place: Path, models: str) -> Iterator[tuple[str, dict[str, str]]]:
    """For each pass, each option: accepted, or how it is refused; recipes are written to ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    recipe = place / "option.yaml"
    for name, known in yaml.safe_load(OPTIONS.read_text(encoding="utf-8")).items():
        model = f"{models}/{'qwen3_moe' if name == 'experts' else 'llama'}"
        found = {}
        for option, value in {**known["options"], **known["with"]}.items():
            step = {"pass": name, **known["with"], option: value}
            recipe.write_text(yaml.safe_dump({"name": "keys", "passes": [step]}), encoding="utf-8")
            found[option] = refusal(partial(plan_model, model, recipe=str(recipe))) or "accepted"
        yield f"keys/{name}", found
