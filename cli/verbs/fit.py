"""``edgepress fit MODEL --max-disk 60MB … -o OUT``: budgets in, the best artifact out."""

from typing import Any

import click

from ...terminal.progress import Terminal
from .. import completion
from ..bundle_options import SEED, Number, OutputDirectory, limit_torch, named_model, threads, torch_device
from ..bundle_options import download as download_option
from ..bundle_options import dry_run as dry_run_option
from ..fit_summary import plan_text, summary_text
from ..verb import Verb, output


@click.command("fit", cls=Verb)
@click.argument("model", required=False, type=completion.ModelName(), shell_complete=completion.models)
@click.option("--max-disk", metavar="SIZE", help="All files of the bundle together, such as 60MB.")
@click.option(
    "--max-memory", metavar="SIZE", help="Resident memory as it generates: 300MB, or here=300MB,pi=200MB."
)
@click.option("--min-decode", metavar="RATE", help="Tokens a second: 100, or here=100,pi=20.")
@click.option("--max-first-token", metavar="TIME", help="Time until the first token: 0.8s or 800ms.")
@click.option("--min-sentences", metavar="RATE", help="Sentences a second of an encoder: 400, or here=400.")
@click.option(
    "--max-energy",
    metavar="JOULES",
    help="Energy of a token or sentence, counted: 0.2J; or modelled by a target's power: "
    "0.2J@raspberry-pi-5.",
)
@click.option(
    "--max-kl",
    metavar="NATS",
    help="KL divergence from the original, a token or (of a classifier) a text or image, such as 0.1.",
)
@click.option(
    "--min-cosine",
    metavar="SHARE",
    help="Mean cosine to the embeddings of the original, an encoder of texts or images, such as 0.98.",
)
@click.option(
    "--min-spearman",
    metavar="SHARE",
    help="Rank correlation of an encoder's sentence similarities with the original's, such as 0.98.",
)
@click.option(
    "--min-accuracy",
    metavar="SHARE",
    help="Accuracy of a classifier's labels, such as 0.9; the text is .jsonl with `label`.",
)
@click.option(
    "--max-slice-kl",
    metavar="NAME=NATS",
    help="KL divergence of the worst group of a slice of text, such as languages=0.3.",
)
@click.option(
    "--on",
    metavar="NAMES",
    default="here",
    show_default=True,
    shell_complete=completion.devices,
    help="Where budgets of devices hold, by comma: here, and names of `edgepress devices add`.",
)
@click.option(
    "--text",
    "--images",
    "--audio",
    "text",
    shell_complete=completion.texts,
    help="Text to calibrate on, search by and judge by, split in three: file, directory, demo corpus; of a "
    "model that reads images a directory of those, of one that hears of WAV files with what is said in each "
    "beside it (NAME.txt).",
)
@click.option("--field", default="text", show_default=True, help="Key of the text in .jsonl files.")
@click.option(
    "--samples",
    type=click.IntRange(1, 100_000),
    default=128,
    show_default=True,
    help="Calibration sequences, images or sounds.",
)
@click.option(
    "--length",
    type=click.IntRange(8, 131_072),
    default=512,
    show_default=True,
    help="Tokens of each sequence.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Decides which sequences are drawn.")
@click.option(
    "--hours",
    type=Number(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Hours after which no further trial begins.",
)
@click.option(
    "--trials",
    type=click.IntRange(0, 10_000),
    default=0,
    metavar="N",
    help="Trials by Optuna of how codes are found: rounding, scaling, rotation, learning.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where the trials of --trials run: in this process and workers, or on a Ray cluster too.",
)
@click.option("--worker", is_flag=True, help="Join the search with --trials that is at work on OUT.")
@torch_device("auto", "Where torch computes: auto, cpu, cuda or mps.")
@threads
@download_option
@dry_run_option
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run wrote, and nothing else.")
@click.option("-o", "--output", "target", type=OutputDirectory(), help="The directory to write.")
@output
def command(
    model: str | None,
    on: str,
    text: str | None,
    worker: bool,
    executor: Any,
    threads: int | None,
    download: bool,
    dry_run: bool,
    overwrite: bool,
    target: str | None,
    terminal: Terminal,
    **options: Any,
) -> None:
    """Find the bundle of MODEL that keeps all budgets with the least damage.

    Candidates of each part of the model are measured once; an exact solver chooses among them; what it chose
    is built, proven and measured, predictions are corrected, and it solves again. OUT gets the bundle, the
    recipe that repeats it, and a report, if every budget holds as measured; else the exit code is 1. With no
    budget but those of quality it is the smallest artifact that keeps them. The same command continues a
    killed run.
    """
    if worker:
        _work(target, threads, terminal)
        return
    if model is None or text is None:
        texts = "--text: a file, a directory or a demo corpus such as wikipedia (or --images, --audio)"
        raise click.UsageError(f"missing {'MODEL' if model is None else texts}")
    named_model(model, download=download)
    from ...fit.budgets import parse
    from ...fit.quantities import QUANTITIES

    devices = _devices(on)
    given = {quantity: options.pop(name) for quantity, name in _named(QUANTITIES)}
    budgets = [
        one for quantity, text in given.items() if text is not None for one in parse(quantity, text, devices)
    ]
    from ...fit.asked.wish import Wish

    wish = Wish(model, tuple(budgets), text, threads=threads, **options)
    wish.check()
    progress = terminal.progress  # a clock that ticks while torch is imported
    from ...fit.api import fit_model, plan_fit

    if dry_run:
        planned = plan_fit(wish, output=target, progress=progress)
        terminal.document(planned, plan_text(planned))
        return
    if target is None:
        raise click.UsageError("missing -o DIRECTORY: where should the artifact go?")
    limit_torch(threads)
    found = fit_model(wish, output=target, overwrite=overwrite, executor=executor, progress=progress)
    terminal.document({"output": target, **found}, summary_text(target, found))


def _work(target: str | None, threads: int | None, terminal: Terminal) -> None:
    if target is None:
        raise click.UsageError("missing -o DIRECTORY: the search of which output?")
    progress = terminal.progress
    from ...fit.outer.worker import work_on

    limit_torch(threads)
    count = work_on(target, progress)
    terminal.document({"output": target, "trials": count}, f"{target}: {count} trials were run here")


def _named(quantities: Any) -> list[tuple[Any, str]]:
    """Each quantity with the name that click gives its option."""
    return [(one, one.option.removeprefix("--").replace("-", "_")) for one in quantities]


def _devices(on: str) -> list[str]:
    """The devices that are named; raises UnknownName for one that was never added."""
    from ...devices.own_devices import HERE, own_device

    names = [name.strip() for name in on.split(",")]
    for name in names:
        if name not in HERE:
            own_device(name)
    return ["here" if name in HERE else name for name in names]
