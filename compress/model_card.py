"""The model card, ``README.md``: of a compressed checkpoint, and what all cards share.

Its front matter is the card data of ``huggingface_hub``, so that a model hub finds base model, licence and
task. Names and texts come from a model's files: in the front matter they are values, in the text words, never
links or HTML. A card prints only commands that work where it lies.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..files.escaping import markdown, one_line
from .bill_of_materials import license_name
from .model.license import SPDX
from .model.model_names import is_hub_id

CARD = "README.md"
INSTALL = (
    "edgepress is on no package index: `make wheel` in its sources writes `dist/edgepress-….whl`, and "
    '`pip install "FILE.whl[{extras}]"` installs it with what this needs.'
)
_WORST_SHOWN = 5
_TAG = re.compile(r"[\w.+-]{1,40}")


def words_of(summary: str) -> list[str]:
    """The tags of what a recipe did: ``awq + W4A16-g64 gptq`` has ``awq``, ``w4a16-g64`` and ``gptq``."""
    return list(dict.fromkeys(word for word in summary.lower().split() if word != "+"))


def front_matter(
    source: Mapping[str, Any],
    *,
    library: str | None,
    task: str,
    tags: Sequence[str],
    quantized: bool,
    measured: Mapping[str, float] | None = None,
    on: str = "",
) -> str:
    """The YAML block of a card.

    Args:
        source: what it was made of, as manifests have it: ``name``, ``hub_id`` where it has one, ``license``.
        library: whose library opens it, as model hubs call it.
        tags: words; what is none is left out.
        measured: how far it is from what it was made of, by metric.
        on: the text that this was measured on.
    """
    from huggingface_hub import EvalResult, ModelCardData

    base = source.get("hub_id")
    known = isinstance(base, str) and is_hub_id(base)
    results = [
        EvalResult(
            task_type=task,
            dataset_type="text",
            dataset_name=on,
            metric_type=key,
            metric_value=value,
            metric_name=f"{key}, against what it was made of",
        )
        for key, value in (measured or {}).items()
    ]
    licence, other = _license(license_name(source.get("license")))
    data = ModelCardData(
        base_model=base if known else None,
        base_model_relation="quantized" if known and quantized else None,
        library_name=library,
        pipeline_tag=task,
        tags=[tag for tag in tags if _TAG.fullmatch(tag)],
        eval_results=results or None,
        model_name=one_line(str(source["name"])) if results else None,
        license=licence,
        license_name=other,
    )
    return f"---\n{data.to_yaml()}\n---"


def _license(name: str | None) -> tuple[str | None, str | None]:
    """``license`` and ``license_name`` of model hubs: identifiers in lower case, others by name."""
    if name is None:
        return None, None
    if name in SPDX.values():
        return name.lower().removesuffix("-only"), None
    return "other", one_line(name.lower())


def licences(made: Mapping[str, Any]) -> str:
    """The section on the licences of the base model and of the text that it was calibrated with."""
    of = {f"the base model, {made['source']['name']}": made["source"].get("license")}
    calibration = made.get("calibration")
    if isinstance(calibration, dict):
        of[f"the calibration text, {Path(str(calibration.get('source'))).name}"] = calibration.get("license")
    lines = []
    for what, stated in of.items():
        name = license_name(stated)
        said = f"{name} ({stated.get('said_by')})" if name else "unknown: its source states none"
        lines.append(f"- of {markdown(what)}: {markdown(said)}")
    return "## Licences\n\n" + "\n".join(lines)


def losses(layers: Sequence[Mapping[str, Any]]) -> str:
    """The section on the layers that lost most; nothing where no layer has an error."""
    worst = sorted(
        (layer for layer in layers if layer.get("error") is not None),
        key=lambda layer: -float(layer["error"]),
    )[:_WORST_SHOWN]
    if not worst:
        return ""
    rows = [
        f"| {markdown(layer['name'])} | {markdown(layer['scheme'])} | {markdown(layer['status'])} "
        f"| {layer['error']:.3g} |"
        for layer in worst
    ]
    # Without statistics of calibration text a layer knows only how far rounding moved its weights.
    of_weights = any(layer.get("error_kind") == "weight" for layer in worst)
    kind, where = ("error of weights", "") if of_weights else ("output error", " on the calibration text")
    head = f"| layer | scheme | status | relative {kind} |\n|---|---|---|---|"
    return (
        f"## Known losses\n\nThe layers with the largest {kind}{where}. Measure the whole model with "
        "`edgepress validate`.\n\n" + "\n".join([head, *rows])
    )


def checkpoint_card(manifest: Mapping[str, Any], task: str, stored: int) -> str:
    """The card of a compressed checkpoint.

    Args:
        manifest: ``edgepress.json``, its files left out.
        task: what the model is for, as model hubs call it.
        stored: bytes of its other files.
    """
    source, scheme = manifest["source"], str(manifest["scheme"])
    opens = manifest["opens_in"]["transformers"]
    quantized = any(step["scheme"] for step in manifest["steps"])
    damage: dict[str, Any] = next(
        (step["damage"] for step in reversed(manifest["steps"]) if step["damage"]), {}
    )
    tags = ["edgepress", *(["compressed-tensors", *words_of(scheme)] if quantized else [])]
    library = "transformers" if opens["answer"] == "yes" else "edgepress"
    parts = [
        front_matter(
            source,
            library=library,
            task=task,
            tags=tags,
            quantized=quantized,
            measured={key: float(damage[key]) for key in ("kl", "distance") if key in damage},
            on=f"{damage.get('tokens')} tokens of the text that every step is measured on",
        ),
        f"# {markdown(str(source['name']))}, {markdown(scheme)}",
        f"Made from: {markdown(str(source['described']))}. Written by edgepress {__version__}.",
        _use(opens),
        _SENTENCES if quantized and opens["answer"] != "no" and task == "sentence-similarity" else "",
        _facts(manifest, stored),
        losses(manifest["layers"]),
        _protected(manifest),
        licences(manifest),
        _recipe(manifest["recipe"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# It calls the model past the hook with which compressed-tensors makes weights float at the first call.
_SENTENCES = """In sentence-transformers, which has to be asked to make the weights float as it loads them \
(activations are then not rounded):

```python
from sentence_transformers import SentenceTransformer
from transformers import CompressedTensorsConfig

asked = {"quantization_config": CompressedTensorsConfig(dequantize=True)}
model = SentenceTransformer(".", model_kwargs=asked)
```"""


def _use(opens: Mapping[str, Any]) -> str:
    why = f", {markdown(str(opens['why']))}" if opens.get("why") else ""
    return (
        "## Use\n\nIn this directory, as a bundle that runs without torch:\n\n```\nedgepress export . -o "
        f"../bundle\n```\n\n{INSTALL.format(extras='compress,cpu')}\n\nIn plain transformers with "
        f"compressed-tensors: {markdown(str(opens['answer']))}{why}."
    )


def _facts(manifest: Mapping[str, Any], stored: int) -> str:
    named = manifest["embedding"], manifest.get("head", manifest["embedding"])
    tables = " and ".join(dict.fromkeys(name or "float32" for name in named))
    lines = [
        f"- files: {stored / 1e6:.1f} MB",
        f"- embedding and head in exports: {markdown(tables)}",
        "- speed and memory in use: not measured of a checkpoint; `edgepress profile` measures its bundle",
    ]
    lines += [f"- note: {markdown(note)}" for note in manifest["notes"]]
    return "## Facts\n\n" + "\n".join(lines)


def _protected(manifest: Mapping[str, Any]) -> str:
    """The section on the groups that were spared, the one that loses most named where that was predicted."""
    tokens = (manifest["calibration"] or {}).get("protected") or {}
    if not tokens:
        return ""
    names = dict.fromkeys(name.partition(": ")[0] for name in tokens)
    text = f"Calibrated with text of {', '.join(names)} ({len(tokens)} groups) beside the ordinary text."
    for step in manifest["steps"]:
        groups = ((step.get("details") or {}).get("protected") or {}).get("groups")
        if groups:
            name, found = max(groups.items(), key=lambda pair: float(pair[1]["predicted"]))
            less = 1 - found["predicted"] / max(groups[name]["unprotected"], 1e-30)
            text += f" Predicted to lose most: {name}, {less:.0%} less than unprotected."
    return f"## Protected groups\n\n{markdown(text)} `edgepress validate --slices` measures it."


def _recipe(recipe: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=100)
    return "## How it was made\n\n```yaml\n" + "\n".join(map(one_line, text.splitlines())) + "\n```"
