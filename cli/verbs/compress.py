"""``edgepress compress MODEL -r RECIPE -o OUT``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from ...files.limits import threads_in_words
from ...terminal.progress import Terminal
from .. import completion
from ..bundle_options import (
    SEED,
    Number,
    OutputDirectory,
    download,
    limit_torch,
    max_memory,
    named_model,
    threads,
    torch_device,
)
from ..bundle_options import dry_run as dry_run_option
from ..measurement_table import in_words
from ..verb import Verb
from ..verb import output as output_options

if TYPE_CHECKING:
    from ...devices.predict.subject import Subject


def _predicted(
    model: str, recipe: str | None, scheme: str | None, group_size: int | None
) -> tuple[dict[str, Any], str]:
    """How fast the bundle will be on this machine, and a sentence of it; nothing where it has no kernel
    table.
    """
    from ...devices.predict.predict import foretold
    from ...devices.predict.subject import PredictedWork

    def subject() -> Subject:
        from ...benchmarks.speed.planned_subject import subject_of

        return subject_of(model, recipe=recipe, scheme=scheme, group_size=group_size)

    prediction = foretold(subject, PredictedWork())
    if prediction is None:
        return {}, ""
    main = [one for one in prediction.quantities[:2] if one.value is not None]
    rates = ", ".join(f"{in_words(one.name)} {one.low:,.0f} to {one.high:,.0f} {one.unit}" for one in main)
    computed = f" with {threads_in_words(prediction.threads)}" if prediction.threads else ""
    said = f"predicted here from its kernel table: {rates}{computed}"
    return {"predicted": prediction.as_dict()}, said


@click.command(
    "compress",
    cls=Verb,
    old={"--calibration": "--text"},
)
@click.argument("model", type=completion.ModelName(), shell_complete=completion.models)
@click.option(
    "-r",
    "--recipe",
    metavar="NAME|FILE",
    shell_complete=completion.recipes,
    help="A recipe: a YAML file, or the name of a packaged one (`edgepress recipe list`).",
)
@click.option(
    "--scheme",
    metavar="NAME",
    shell_complete=completion.schemes,
    help="The short way: W4A16 (or int4), W3A16, W4A16_ASYM, W8A8 (int8), FP8_DYNAMIC, NVFP4A16, …",
)
@click.option(
    "--group-size",
    type=click.IntRange(16, 256),
    help="With --scheme: input channels per scale, 16 to 256. [default: the largest up to 128 that fit]",
)
@click.option("-o", "--output", type=OutputDirectory(), help="The directory to write.")
@click.option(
    "--text",
    "--images",
    "--audio",
    "calibration",
    shell_complete=completion.texts,
    help="Calibration text: a file, a directory, or a demo corpus (wikipedia); of a model that reads images, "
    "a directory of those; of one that hears, of WAV files with what is said in each beside it (NAME.txt).",
)
@click.option("--samples", type=click.IntRange(1, 100_000), help="Calibration sequences.")
@click.option("--length", type=click.IntRange(8, 131_072), help="Tokens per calibration sequence.")
@click.option("--seed", type=SEED, help="Decides which sequences are drawn.")
@click.option(
    "--protect",
    multiple=True,
    metavar="slice=NAME",
    shell_complete=completion.protected,
    help="Spare these groups: slice=languages, slice=people, slice=professions, or slice=FILE.jsonl, whose "
    'rows have a "group". Repeatable.',
)
@click.option("--field", default="text", show_default=True, help="Key of the text in .jsonl files.")
@click.option(
    "--chat",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Whether texts go through the chat template; auto: where they are conversations.",
)
@click.option(
    "--max-time",
    type=Number(0, min_open=True),
    help="Minutes after which learning ends, in every pass of the recipe that learns.",
)
@max_memory
@click.option(
    "--requantize", is_flag=True, help="Round again what MODEL comes quantized with, though it adds an error."
)
@click.option(
    "--answers",
    type=click.Path(file_okay=False),
    help="Directory in which teacher logits are cached, for other runs that learn from them.",
)
@torch_device("auto", "Where torch computes: auto, cpu, cuda or mps.")
@threads
@download
@dry_run_option
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run wrote, and nothing else.")
@click.option("--restart", is_flag=True, help="Drop what a killed run left instead of continuing it.")
@click.option("--strict", is_flag=True, help="Fail when a layer could not be compressed as asked.")
@output_options
def command(
    model: str,
    recipe: str | None,
    scheme: str | None,
    group_size: int | None,
    output: str | None,
    download: bool,
    dry_run: bool,
    threads: int | None,
    terminal: Terminal,
    **options: Any,
) -> None:
    """Compress MODEL: an HF directory, a .gguf file, a demo name (minilm, smollm2), or a hub id (OWNER/NAME)
    that is in the local Hugging Face cache.

    A killed run is continued by the same command, and ends with the same bytes.
    """
    if output is None and not dry_run:
        raise click.UsageError("missing -o DIRECTORY: where should the compressed checkpoint go?")
    named_model(model, download=download)
    chosen: dict[str, Any] = {"recipe": recipe, "scheme": scheme, "group_size": group_size}
    if options["protect"]:
        from ...benchmarks.quality.subgroups.items import protected_text

        options["protect"] = [protected_text(name, options["field"]) for name in options["protect"]]
    if dry_run:
        from ...compress.api import plan_model
        from ..compress_plan import shown_plan

        of_the_work = ("answers", "overwrite", "restart", "strict")
        wanted = {name: value for name, value in options.items() if name not in of_the_work}
        plan = plan_model(model, output=output or ".", **chosen, **wanted, progress=terminal.progress)
        found, said = _predicted(model, recipe, scheme, group_size)
        terminal.document({**plan.as_dict(), **found}, shown_plan(plan, said))
        return
    limit_torch(threads)
    _compress(terminal, model, str(output), {**chosen, **options})


def _compress(terminal: Terminal, model: str, output: str, options: dict[str, Any]) -> None:
    from ...compress.api import compress_model
    from ...compress.pipeline.processes import is_follower

    path = compress_model(model, output=output, progress=terminal.progress, **options)
    if is_follower():
        return
    from ...compress.model.weights import MANIFEST, WeightSource
    from ...compress.solve.allocation import mixed_strip
    from ...files.storage import read_json

    manifest = read_json(path / MANIFEST)
    size = sum(entry["bytes"] for entry in manifest["files"].values())
    lines = [f"{path}: {manifest['source']['described']}, {manifest['scheme']}, {size / 1e6:.1f} MB"]
    lines += [f"  {step['pass']}: {step_summary(step)}" for step in manifest["steps"]]
    source = WeightSource.open(path)
    widths = mixed_strip(source.anatomy, source.schemes)
    lines += ["  bits by layer, block 0 to the last:", *(f"    {line}" for line in widths)] if widths else []
    lines += [f"  note: {note}" for note in manifest["notes"]]
    others = [line for line in manifest["runs_on"] if not line.startswith("integers: ")]
    lines += [f"  runs on: {line}" for line in others]
    opening = manifest["opens_in"]["transformers"]
    lines.append(f"  opens in transformers: {': '.join(filter(None, opening.values()))}")
    if others != manifest["runs_on"]:
        lines.append(f"  next: edgepress export {shlex.quote(output)} -o BUNDLE")
    document = {
        "output": str(path),
        "bytes": size,
        **{key: manifest[key] for key in ("scheme", "steps", "runs_on", "opens_in", "source")},
    }
    terminal.document(document, "\n".join(lines))


_MEASURES = {"kl": "KL", "distance": "distance"}


def step_summary(step: dict[str, Any]) -> str:
    """What a step of the manifest says of itself: of layers it changed, and of the model after it."""
    parts = [", ".join(f"{count} {status}" for status, count in sorted(step["statuses"].items()))]
    if step["worst_error"] > 0:
        parts.append(f"worst relative error {step['worst_error']:.3g}")
    damage = step["damage"] or {}
    for measure in _MEASURES.keys() & damage.keys():
        parts.append(
            f"{_MEASURES[measure]} to the original {damage[measure]:.3g} over {damage['tokens']} tokens"
        )
    parts += _learned(step.get("details") or {})
    return "; ".join(part for part in parts if part) or "done"


def _learned(details: dict[str, Any]) -> list[str]:
    """What a pass that learned says besides: of the loss on held-out text, and of what did not go well."""
    measure, losses, parts = details.get("measure"), dict(details.get("held_out") or ()), []
    if details.get("kept") in losses:
        before, now = next(iter(losses.values())), losses[details["kept"]]
        parts.append(f"held-out {measure} {before:.3g}, now {now:.3g}")
    if details.get("kept") == 0:
        parts.append("kept as it was: nothing learned was better")
    if retreats := details.get("retreats"):
        parts.append(f"rolled back {retreats} × after loss spikes: try a lower learning_rate")
    return parts
