"""``edgepress validate``: compare a bundle or checkpoint with the original on a text."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ...terminal.progress import Terminal
from .. import completion
from ..bundle_options import (
    COUNT,
    LIMIT,
    SEED,
    SHARE,
    Number,
    max_memory,
    named_model,
    print_plan,
    threads,
    torch_device,
)
from ..bundle_options import download as download_option
from ..bundle_options import dry_run as dry_run_option
from ..run_file import RunFile
from ..verb import Verb, output

if TYPE_CHECKING:
    from ...benchmarks.quality.acceptance import Gate
    from ...benchmarks.records.record import Measurement

# From the options of the verb to the metric they limit.
GATES: dict[str, tuple[str, Literal["max", "min"]]] = {
    "max_perplexity": ("perplexity", "max"),
    "max_kl": ("kl", "max"),
    "min_top1": ("top1_agreement", "min"),
    "max_loops": ("loops", "max"),
    "max_flips": ("group_flips", "max"),
    "min_cosine": ("cosine", "min"),
    "min_retrieval": ("retrieval_at_1", "min"),
    "max_label_kl": ("label_kl", "max"),
    "min_label_agreement": ("label_agreement", "min"),
    "min_label_accuracy": ("label_accuracy", "min"),
}
# Those that a plan depends on.
_PLANNED = ("text", "field", "windows", "length", "sentences", "slices")

MEASURED = """What is measured, of

decoders: perplexity, bits per byte, KL divergence and top-1 agreement on the same windows of text; and
of the greedy replies to twenty prompts how many end in a loop, and how much in them is repeated;

encoders: cosine to the original's embeddings, retrieval of passages (R@1, mean reciprocal rank), overlap
of the ten nearest neighbours, similarity of sentence pairs, a linear probe, and Spearman correlation
with people on two sets of word pairs;

classifiers: agreement of the labels, KL divergence of their distributions, and accuracy where the rows
of a .jsonl text have a "label";

encoder–decoders: as decoders, of the outputs given the inputs of .jsonl rows such as {"input": "…",
"output": "…"}; where rows have no output, that is what the original replies, and no perplexity is
measured; and how many greedy replies are the original's, word for word, and how many end in a loop;

models that hear: the same, of the words that are said in sounds;

models of images: cosine and nearest neighbours of embeddings, or agreement and KL divergence of labels.

Intervals hold 95 % of bootstrap resamples of windows, texts or pairs. --slices names the groups that
lose more than the others: languages, phenomena of syntax, people and professions, rare words, positions,
or the "group" of the rows of a .jsonl text; the model card with what was found goes beside the run file."""


@click.command("validate", cls=Verb, old={"--corpus": "--text"}, epilog=MEASURED)
@click.argument("subject")
@click.option(
    "--against",
    required=True,
    metavar="MODEL",
    type=completion.ModelName(),
    shell_complete=completion.models,
    help="The original: a directory, .gguf file, demo name or hub id.",
)
@click.option(
    "--text",
    "--images",
    "--audio",
    "text",
    default="wikipedia",
    show_default=True,
    shell_complete=completion.texts,
    help="Text that was not calibrated with: a file, a directory, or the rest of a demo corpus; of a model "
    "that reads images or hears, a directory of those, or of sounds with what is said in them; of an "
    "encoder–decoder .jsonl rows with an input and an output.",
)
@click.option("--field", default="text", show_default=True, help="Key of the text or input in .jsonl rows.")
@click.option("--windows", type=COUNT, default=16, show_default=True, help="Decoders: number of windows.")
@click.option(
    "--length",
    type=click.IntRange(2, 131_072),
    default=512,
    show_default=True,
    help="Decoders: tokens in a window; encoder–decoders: in an input or output at most.",
)
@click.option(
    "--sentences",
    type=COUNT,
    default=256,
    show_default=True,
    help="Encoders: paragraphs, or images, sounds or pairs of texts, at most.",
)
@click.option(
    "--placement",
    type=click.Choice(["spread", "first"]),
    default="spread",
    show_default=True,
    help="Windows spread over the text, or its first ones.",
)
@click.option(
    "--slices",
    metavar="NAMES",
    shell_complete=completion.slices,
    help="Whom the compression harms more: all, or names with commas (languages, syntax, people, …), or "
    ".jsonl files of your own.",
)
@torch_device("cpu", "Where torch runs checkpoints: auto, cpu, cuda, mps.")
@threads
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the bootstrap intervals.")
@click.option(
    "--record", type=click.Path(path_type=Path), help="Run file to append to [default: runs/NAME.jsonl]."
)
@click.option(
    "--hub-benchmark",
    metavar="OWNER/NAME:TASK",
    help="The benchmark of the Hugging Face Hub that the text is of: its result goes to a file beside the "
    "run file, for .eval_results/ of a model's repository.",
)
@click.option("--max-perplexity", type=LIMIT, help="Fail above this perplexity.")
@click.option("--max-kl", type=LIMIT, help="Fail above this KL divergence, nats per token.")
@click.option("--min-top1", type=SHARE, help="Fail below this top-1 agreement, 0 to 1.")
@click.option(
    "--max-loops", type=SHARE, help="Fail above this fraction of greedy replies that end in a loop."
)
@click.option("--max-flips", type=SHARE, help="Fail where a group of --slices changes more of its answers.")
@click.option("--min-cosine", type=Number(-1, 1), help="Fail below this mean cosine.")
@click.option("--min-retrieval", type=SHARE, help="Fail below this R@1 of passages, 0 to 1.")
@click.option("--max-label-kl", type=LIMIT, help="Fail above this KL of a classifier's labels.")
@click.option("--min-label-agreement", type=SHARE, help="Fail below this fraction of equal labels.")
@click.option("--min-label-accuracy", type=SHARE, help="Fail below this fraction of right labels.")
@max_memory
@download_option
@dry_run_option
@output
def command(
    subject: str,
    against: str,
    max_memory: float | None,
    download: bool,
    dry_run: bool,
    terminal: Terminal,
    record: Path | None,
    hub_benchmark: str | None,
    **options: Any,
) -> int:
    """Compare SUBJECT, a bundle or checkpoint, with the original it was made from.

    Both read the same text; one JSON line is appended to the run file, which `edgepress compare` and
    `edgepress report` read. What is measured of each kind of model stands below the options.
    """
    path = record or Path("runs") / f"{Path(subject).resolve().name}.jsonl"
    run = RunFile(path, slices=bool(options["slices"]), benchmark=hub_benchmark)
    run.check()
    _check_words(subject, against, options["text"], options["field"], download=download)
    progress = terminal.progress  # a clock that ticks while torch is imported
    from ...benchmarks.quality.acceptance import Gate
    from ...benchmarks.quality.validate import plan_validation, validate_bundle

    gates = [Gate(*GATES[name], options[name]) for name in GATES if options[name] is not None]
    options = {name: value for name, value in options.items() if name not in GATES}
    shared: dict[str, Any] = {"max_memory": max_memory, "progress": progress}
    if dry_run:
        planned = {name: options[name] for name in _PLANNED}
        print_plan(terminal, plan_validation(subject, against, **_text(planned), **shared), path, max_memory)
        return 0
    words = _reproduce(subject, against, options)
    line = validate_bundle(subject, against, record=path, command=words, **_text(options), **shared)
    return _report(line, gates, run, Path(subject), terminal)


def _report(line: Measurement, gates: Sequence[Gate], run: RunFile, subject: Path, terminal: Terminal) -> int:
    """Show ``line`` and write what goes beside it; the exit code, or the error of the gates that it fails."""
    from ...benchmarks.quality.acceptance import failure
    from ...benchmarks.quality.quality_table import render

    checked = [gate.check(line) for gate in gates]
    failed = failure(checked)
    terminal.document({**line.model_dump(by_alias=True, mode="json"), "gates": checked}, render(line))
    run.write_beside(line, subject, terminal)
    if failed is not None and not terminal.as_json:
        raise failed
    return 0 if failed is None else failed.exit_code


def _text(options: dict[str, Any]) -> dict[str, Any]:
    """The options of the verb as the function has them, which tells a corpus from a path."""
    from ...compress.text.corpus import CORPORA

    text, slices = options["text"], options["slices"]
    options = {**options, "slices": slices.split(",") if slices else ()}
    return {**options, "text": None, "corpus": text} if text in CORPORA else options


def _check_words(subject: str, against: str, text: str, field: str, *, download: bool) -> None:
    """Refuse what is misspelt or missing before anything heavy is imported."""
    from ...compress.model.model_names import read_by_model
    from ...compress.text.corpus import require_text

    for model in (subject, against):
        named_model(model, download=download and model == against)
    if read_by_model(against) != "text":
        return  # which folder is given is looked at first of all then
    require_text(text, field)


def _reproduce(subject: str, against: str, options: dict[str, Any]) -> str:
    """The command line with the options that differ from their defaults."""
    defaults = {parameter.name: parameter.default for parameter in command.params}
    parts = ["edgepress", "validate", subject, "--against", against]
    for name, value in options.items():
        if value is not None and value != defaults[name]:
            parts += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(parts)
