"""``edgepress predict``: what a bundle will take on machines, before it is measured there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import EdgepressError, InputError, together
from ...files.limits import threads_in_words
from ...terminal.progress import Terminal
from .. import completion
from ..bundle_options import COUNT, threads
from ..measurement_table import in_words
from ..verb import Verb, output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ...devices.predict.prediction import Prediction, Quantity
    from ...devices.predict.subject import Subject


@click.command("predict", cls=Verb)
@click.argument("model", type=completion.ModelName(), shell_complete=completion.models)
@click.option(
    "-r", "--recipe", shell_complete=completion.recipes, help="What MODEL would be compressed with: a recipe."
)
@click.option("--scheme", shell_complete=completion.schemes, help="The short way: W4A16, W8A8, …")
@click.option(
    "--on",
    default="here",
    show_default=True,
    metavar="NAMES",
    shell_complete=completion.targets,
    help="By comma: here, names of `edgepress devices add`, and targets of `edgepress devices list`.",
)
@click.option(
    "--prompt-tokens",
    type=COUNT,
    default=128,
    show_default=True,
    help="Prompt length; an encoder's sentence length.",
)
@click.option("--max-new-tokens", type=COUNT, default=128, show_default=True, help="Tokens to generate.")
@click.option(
    "--batch-size", type=COUNT, default=32, show_default=True, help="Sentences per batch of an encoder."
)
@threads
@click.option(
    "--provider",
    help="What runs it there: cpu, cuda, tensorrt, openvino. [default: a target's GPU, else cpu]",
)
@output
def command(
    model: str,
    recipe: str | None,
    scheme: str | None,
    on: str,
    prompt_tokens: int,
    max_new_tokens: int,
    batch_size: int,
    threads: int | None,
    provider: str | None,
    terminal: Terminal,
) -> None:
    """Predict latency, memory and disk on machines of MODEL, without running it: a bundle, a checkpoint, or
    a model and the recipe that it would be compressed with.

    A machine with a kernel table (`edgepress devices measure`) is predicted from what its kernels do;
    another from its data sheet, with a wider band. Nothing here is a measurement: each prediction names the
    command that makes one.
    """
    from ...devices.predict.predict import predict
    from ...devices.predict.subject import PredictedWork

    work = PredictedWork(prompt_tokens, max_new_tokens, batch_size)
    subject = _subject(model, recipe, scheme, terminal)
    path = model if is_bundle(Path(model)) else "BUNDLE"
    names = dict.fromkeys(name.strip() for name in on.split(",") if name.strip())
    how: dict[str, Any] = {"threads": threads, "provider": provider, "path": path}
    found: list[Prediction] = []
    errors: dict[str, EdgepressError] = {}
    for name in names:
        try:
            found.append(predict(subject, name, work, **how))
        except InputError as error:
            errors[name] = error
    failure = together(errors)
    if failure is not None and not (found and terminal.as_json):
        if found:
            terminal.document(None, _tables(found))
        raise failure
    document: dict[str, Any] = {"predictions": [one.as_dict() for one in found]}
    document |= {"errors": {name: error.as_dict() for name, error in errors.items()}} if errors else {}
    terminal.document(document, None if terminal.as_json else _tables(found))
    if failure is not None:
        raise click.exceptions.Exit(failure.exit_code)


def _subject(model: str, recipe: str | None, scheme: str | None, terminal: Terminal) -> Subject:
    """A bundle is read without torch."""
    if is_bundle(Path(model)) and not (recipe or scheme):
        from ...devices.predict.subject import bundle_subject

        return bundle_subject(Path(model))
    if recipe and scheme:
        raise click.UsageError("-r and --scheme are two ways to say the same: give one of them")
    from ...benchmarks.speed.planned_subject import subject_of

    return subject_of(model, recipe=recipe, scheme=scheme, progress=terminal.progress)


def is_bundle(path: Path) -> bool:
    """Whether ``path`` looks like a bundle, and not like a checkpoint or the name of a model."""
    return (path / "manifest.json").is_file()


def _tables(found: list[Prediction]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for one in found:
        parts += [Text(_title(one)), _table(one), *(Text(f"note: {note}") for note in one.notes)]
        parts += [Text(f"measure it: {one.check}", no_wrap=True, overflow="ignore"), Text("")]
    return Group(*parts)


def _title(one: Prediction) -> str:
    count = f", {threads_in_words(one.threads)}" if one.threads else ""
    count += "" if one.provider == "cpu" else f", {one.provider}"
    return f"{one.subject} on {one.target}{count}: predicted from a {one.basis}\n{one.source}"


def _table(one: Prediction) -> RenderableType:
    from ...terminal.tables import FittingTable

    table = FittingTable()
    table.add_column("")
    for heading in ("predicted", "from", "to"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    for quantity in one.quantities:
        table.add_row(in_words(quantity.name), *_numbers(quantity))
    return table


def _numbers(quantity: Quantity) -> tuple[str, str, str, str]:
    scale, unit = (1e6, "MB") if quantity.unit == "bytes" else (1.0, quantity.unit)
    if quantity.value is None:
        most = "" if quantity.most is None else f"{quantity.most / scale:,.0f}"
        return "–", "", most, quantity.reason
    values = (quantity.value, quantity.low, quantity.high)
    shown = [
        f"{value / scale:,.0f}" if value / scale >= 100 else f"{value / scale:.3g}"
        for value in values
        if value is not None
    ]
    return shown[0], shown[1], shown[2], unit
