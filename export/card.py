"""The model card, ``README.md``: what the bundle is, how it was made and proven, and its known losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..compress.bill_of_materials import license_name
from ..escaping import markdown, one_line
from .graph.forms.providers import status_of

_WORST_SHOWN = 5


def card_of(manifest: dict[str, Any], made: dict[str, Any], command: str) -> str:
    """Markdown with YAML front matter for the bundle of ``manifest``; ``made`` says what its checkpoint was
    made of, ``command`` reproduces it.
    """
    task, verb = _purpose(manifest)
    own = manifest["graph"]["operators"] == "edgepress"
    front: dict[str, Any] = {
        "library_name": "edgepress" if own else "onnxruntime",
        "pipeline_tag": task,
        "base_model": _base_model(manifest),
        "tags": ["onnx", "edgepress", "quantized" if manifest["scheme"] != "fp32" else "fp32"],
    }
    licence = license_name(made["source"].get("license"))
    if licence is not None:
        front["license"] = one_line(licence.lower())  # as model hubs write SPDX identifiers
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=True, allow_unicode=True)}---",
        f"# {markdown(manifest['name'])}, {markdown(manifest['scheme'])}",
        f"Made from: {markdown(manifest['described'])}. Written by edgepress {__version__}.",
        _use(verb),
        _elsewhere(command) if own else "",
        _facts(manifest),
        _losses(manifest),
        _proof(manifest["parity"]),
        _licences(made),
        f"## How it was made\n\n```\n{one_line(command)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _licences(made: dict[str, Any]) -> str:
    """Of the base model and of the text that it was calibrated with."""
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


def _base_model(manifest: dict[str, Any]) -> str:
    made_from = manifest["source"].get("model")
    named = made_from if isinstance(made_from, dict) and "name" in made_from else manifest
    return one_line(str(named["name"]))


def _purpose(manifest: dict[str, Any]) -> tuple[str, str]:
    """What the model is for, as model hubs call it, and the verb that does it."""
    if manifest["kind"] == "decoder":
        return "text-generation", 'generate BUNDLE --prompt "…"'
    if manifest["encoder"].get("labels"):
        return "text-classification", 'classify BUNDLE "a sentence"'
    return "sentence-similarity", 'encode BUNDLE "a sentence"'


def _use(verb: str) -> str:
    return (
        f"## Use\n\n```\nedgepress {verb}\n```\n\nedgepress is on no package index: `make wheel` in its "
        'sources writes `dist/edgepress-….whl`, and `pip install "FILE.whl[cpu]"` installs it with what a '
        "bundle needs."
    )


def _elsewhere(command: str) -> str:
    return (
        "## In other runtimes\n\nThe graph needs edgepress's own operators, which no other runtime has. For "
        "plain ONNX Runtime, onnxruntime-genai, node or a browser, export the checkpoint once more:\n\n"
        f"```\n{one_line(command)} --for standard\n```"
    )


def _facts(manifest: dict[str, Any]) -> str:
    weights, graph = manifest["weights"], manifest["graph"]
    lines = [
        f"- parameters: {weights['params']:,}",
        f"- weights as stored: {weights['bytes'] / 1e6:.1f} MB",
        f"- embedding and head: {markdown(manifest['source']['embedding'] or 'float32')}",
        f"- graph: opset {graph['opset']}, IR {graph['ir_version']}",
    ]
    lines.append(f"- operators: {graph['operators']}; runs in {markdown(graph['runs_in'])}")
    lines += [f"- storage: {markdown(note)}" for note in graph["notes"]]
    opening = (manifest["source"].get("opens_in") or {}).get("transformers") or {}
    if opening.get("answer", "yes") != "yes":
        opens = f"{markdown(opening['answer'])}: {markdown(opening['why'])}"
        lines.append(f"- the checkpoint itself in plain transformers: {opens}")
    lines += [f"- provider {status}" for status in [status_of(manifest)] if status]
    return "## Facts\n\n" + "\n".join(lines)


def _losses(manifest: dict[str, Any]) -> str:
    layers = [layer for layer in manifest["layers"] if layer.get("error") is not None]
    if not layers:
        return ""
    worst = sorted(layers, key=lambda layer: -float(layer["error"]))[:_WORST_SHOWN]
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


def _proof(parity: dict[str, Any]) -> str:
    if parity["status"] != "passed":
        return "## Proof\n\n**Not proven**: exported with `--no-validate`."
    ran = parity["ran"]
    with_what = f" ({ran['instructions']})" if ran["instructions"] else ""
    lines = [f"- run with {ran['operators']} operators{with_what}"]
    lines.append(
        f"- float graph against torch: largest difference {parity['float']['max_abs_difference']:.3g}"
    )
    if "codes" in parity:
        difference = parity["codes"]["max_abs_difference"]
        lines.append(f"- quantized weights against torch: largest difference {difference:.3g}")
    quantized = parity.get("quantized", {})
    lines += [
        f"- as shipped, {key}: {value:.4g}" for key, value in quantized.items() if isinstance(value, float)
    ]
    if "greedy" in parity:
        lines.append(f"- greedy continuation: {parity['greedy']['tokens']} tokens as torch chooses them")
    return "## Proof\n\n" + "\n".join(lines)
