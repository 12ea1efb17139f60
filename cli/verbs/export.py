"""``edgepress export CHECKPOINT --format onnx -o BUNDLE``.

The verb stands on this floor because it may measure what it exports before that is published.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import require
from ...terminal.progress import Terminal
from .. import completion
from ..bundle_options import OutputDirectory, limit_torch, max_memory, named_model, print_plan, threads
from ..bundle_options import download as download_option
from ..bundle_options import dry_run as dry_run_option
from ..manifest_rows import largest_difference, shown_distances
from ..verb import Verb, given_command
from ..verb import output as output_options

if TYPE_CHECKING:
    from ...benchmarks.records.record import Measurement


@click.command("export", cls=Verb)
@click.argument("checkpoint", type=completion.ModelName(), shell_complete=completion.models)
@click.option(
    "--format",
    "format_",
    default="onnx",
    show_default=True,
    shell_complete=completion.formats,
    help="The bundle's format.",
)
@click.option("-o", "--output", type=OutputDirectory(), help="The directory to write.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run wrote, and nothing else.")
@click.option("--no-validate", is_flag=True, help="Publish without proof; the manifest says so.")
@click.option("--text", type=click.Path(), help="UTF-8 text for the proof, instead of the built-in passage.")
@click.option(
    "--kv",
    type=click.Choice(["fp32", "fp16", "int8", "int4"]),
    help="How a decoder caches keys and values. [default: as the checkpoint says]",
)
@click.option(
    "--provider",
    default="cpu",
    show_default=True,
    help="What the graph is written for: cpu, cuda (float16), openvino, tensorrt (standard operators).",
)
@click.option(
    "--for",
    "operators",
    type=click.Choice(["edgepress", "standard"]),
    help="Edgepress's own operators, for the CPU and for edgepress alone, or those of ONNX Runtime, for "
    "onnxruntime-genai, node, browsers and others. [default: edgepress, where they are built]",
)
@click.option(
    "--activations",
    type=click.Choice(["int8", "float32"]),
    default="int8",
    show_default=True,
    help="How products of a weight-only scheme take activations on the CPU: rounded by groups, or as they "
    "are, which is slower.",
)
@click.option("--require-faster", is_flag=True, help="Publish only what beats its float32 export here.")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    help="Run file for that measurement. [default: runs/NAME.jsonl]",
)
@max_memory
@threads
@download_option
@dry_run_option
@output_options
def command(
    checkpoint: str,
    format_: str,
    output: str | None,
    overwrite: bool,
    no_validate: bool,
    require_faster: bool,
    record: Path | None,
    max_memory: float | None,
    threads: int | None,
    download: bool,
    dry_run: bool,
    terminal: Terminal,
    **options: Any,
) -> None:
    """Export CHECKPOINT: a compressed checkpoint, an HF directory, a .gguf file, a demo name, or a hub id.

    The graph is compared with the torch model before it is published; a failed proof publishes nothing.
    With --require-faster it is also timed interleaved with its float32 export: a decoder must decode faster,
    an encoder embed more sentences.
    """
    require("torch", "compress")
    named_model(checkpoint, download=download)
    progress = terminal.progress  # a clock that ticks while torch is imported
    limit_torch(threads)
    from ...export.api import export_bundle, plan_export
    from ...files.storage import read_json
    from ...runtime.bundle.directory import MANIFEST

    chosen = {"format": format_, "validate": not no_validate, "progress": progress, **options}
    if dry_run:
        needs = plan_export(checkpoint, output=output or "bundle", gate=require_faster, **chosen)
        print_plan(terminal, needs, Path(output or "."), max_memory)
        return
    if output is None:
        raise click.UsageError("missing -o DIRECTORY: where should the bundle go?")
    run = record or Path("runs") / f"{Path(output).name}.jsonl"
    gate = _Faster(run, terminal) if require_faster else None
    path = export_bundle(
        checkpoint, output=output, overwrite=overwrite, gate=gate, max_memory=max_memory, **chosen
    )
    manifest = read_json(path / MANIFEST)
    keys = ("name", "described", "kind", "scheme", "weights", "graph", "parity")
    document = {"output": str(path), **{key: manifest[key] for key in keys}}
    if gate is not None:
        document["faster_than_float"] = gate.recorded()
    terminal.document(document, _summary(path, manifest))


class _Faster:
    """The gate of --require-faster; its measurement goes to the file ``run`` once the bundle is published."""

    def __init__(self, run: Path, terminal: Terminal) -> None:
        from ...benchmarks.records.record import refuse_foreign

        refuse_foreign(run)
        self._run, self._terminal, self._command = run, terminal, given_command()
        self._line: Measurement | None = None

    def __call__(self, bundle: Path, baseline: Path) -> None:
        from ...benchmarks.speed.faster import require_faster

        progress = self._terminal.progress
        self._line = require_faster(bundle, baseline, command=self._command, progress=progress)

    def recorded(self) -> dict[str, Any]:
        """The comparison with float32, after it was appended to the run file."""
        from ...benchmarks.records.record import append

        assert self._line is not None and self._line.compare is not None
        append(self._run, self._line)
        found = self._line.compare
        low, high = found["ci95"]
        ratio = f"{found['ratio_median']:.2f} × ({low:.2f} – {high:.2f})"
        self._terminal.say(f"{found['metric']}: {ratio} that of float32, recorded in {self._run}")
        return found


def _summary(path: Any, manifest: dict[str, Any]) -> str:
    from ...export.graph.forms.providers import status_of
    from ...export.proof.parity import lost_text

    size = sum(entry["bytes"] for entry in manifest["files"].values())
    lines = [
        f"{path}: {manifest['described']}, {manifest['scheme']}, {size / 1e6:.1f} MB, all that a device keeps"
    ]
    if "operators" in manifest["graph"]:
        lines.append(f"  {manifest['graph']['operators']} operators: runs in {manifest['graph']['runs_in']}")
    lines += [f"  {note}" for note in (*manifest["graph"]["notes"], status_of(manifest)) if note]
    parity = manifest["parity"]
    if parity["status"] != "passed":
        return "\n".join([*lines, f"  WARNING: {parity['warning']}"])
    lines.append(f"  float graph: {largest_difference(parity['float'])}")
    if "codes" in parity:
        lines.append(f"  quantized weights: largest difference {parity['codes']['max_abs_difference']:.3g}")
    if "caches" in parity:
        mean, bound = (parity["caches"][name] for name in ("mean_abs_difference", "bound"))
        lines.append(f"  caches in codes: mean difference {mean:.3g} (bound {bound:.3g})")
    if "quantized" in parity:
        lines.append(f"  as shipped, to the checkpoint: {shown_distances(parity['quantized'])}")
    if "greedy" in parity:
        lines.append(f"  greedy: {_greedy(parity['greedy'])}")
    lines += [f"  WARNING: {lost}" for lost in [lost_text(parity)] if lost]
    return "\n".join(lines)


def _greedy(found: dict[str, Any]) -> str:
    ties = found["near_ties"]
    same = f"{found['tokens']} tokens, the checkpoint's"
    return f"{same} but for {ties} near-tie{'s' * (ties > 1)}" if ties else same
