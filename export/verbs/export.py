"""``edgepress export CHECKPOINT --format onnx -o BUNDLE``."""

from __future__ import annotations

from typing import Any

import click

from ...terminal import Terminal


@click.command("export", short_help="Export a checkpoint to a bundle that runs on a device.")
@click.argument("checkpoint")
@click.option("--format", "format_", default="onnx", show_default=True, help="The bundle's format.")
@click.option("-o", "--output", required=True, type=click.Path(), help="The directory to write.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--no-validate", is_flag=True, help="Publish without proof; the manifest says so.")
@click.option("--text", type=click.Path(), help="UTF-8 text for the proof, instead of the built-in passage.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    checkpoint: str,
    format_: str,
    output: str,
    overwrite: bool,
    no_validate: bool,
    text: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Export CHECKPOINT: a compressed checkpoint, an HF directory, a .gguf file, or a demo name.

    The graph is compared with the torch model before it is published; a failed proof publishes nothing.
    """
    from ...storage import read_json
    from ..api import export_bundle
    from ..manifest import MANIFEST

    terminal = Terminal(as_json=as_json, quiet=quiet)
    path = export_bundle(
        checkpoint,
        format=format_,
        output=output,
        overwrite=overwrite,
        validate=not no_validate,
        text=text,
        progress=terminal.progress,
    )
    manifest = read_json(path / MANIFEST)
    keys = ("name", "described", "kind", "scheme", "weights", "graph", "parity")
    terminal.document({"output": str(path), **{key: manifest[key] for key in keys}}, _summary(path, manifest))


def _summary(path: Any, manifest: dict[str, Any]) -> str:
    size = sum(entry["bytes"] for entry in manifest["files"].values())
    lines = [f"{path}: {manifest['described']}, {manifest['scheme']}, {size / 1e6:.1f} MB"]
    lines += [f"  {note}" for note in manifest["graph"]["notes"]]
    parity = manifest["parity"]
    if parity["status"] != "passed":
        return "\n".join([*lines, f"  WARNING: {parity['warning']}"])
    found = parity["float"]
    lines.append(
        f"  float graph: largest difference {found['max_abs_difference']:.3g} (bound {found['bound']:.3g})"
    )
    if "codes" in parity:
        lines.append(f"  quantized weights: largest difference {parity['codes']['max_abs_difference']:.3g}")
    if "quantized" in parity:
        shown = {key: value for key, value in parity["quantized"].items() if isinstance(value, float)}
        lines.append("  as shipped: " + ", ".join(f"{key} {value:.5g}" for key, value in shown.items()))
    if "greedy" in parity:
        greedy = parity["greedy"]
        lines.append(f"  greedy: {greedy['tokens']} tokens, {greedy['near_ties']} near-ties")
    return "\n".join(lines)
