"""The reference, read from the code: verbs, passes, recipes and their schema, Python API, targets, errors."""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import click

from ... import errors
from ...cli.verb import VERBS
from ...compress.pass_help import TRAINING, all_passes, options_of, schema
from ...compress.pipeline.pass_names import as_yaml
from ...compress.pipeline.pass_options import pass_type
from ...compress.recipe_files import about, names, text_of
from ...devices.target import target, target_names


def cell(text: object) -> str:
    """One cell of a table: no line breaks and no bars; what is no code span has no HTML."""
    parts = " ".join(str(text).split()).split("`")
    plain = (part.replace("|", "\\|").replace("<", "&lt;") for part in parts[::2])
    return "`".join(next(plain) if index % 2 == 0 else part for index, part in enumerate(parts))


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of Markdown; cells are as they are given."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def verbs() -> str:
    """Every verb with its usage and options, as ``--help`` says it."""
    head = "# Verbs\n\nWhat options mean in all verbs: [the command line](command-line.md)."
    commands = [(name, import_module(f"...cli.verbs.{name}", __package__).command) for name in VERBS]
    return "\n\n".join([head, *(part for name, one in commands for part in _verb(one, name, None, 2))]) + "\n"


def _verb(command: click.Command, name: str, above: click.Context | None, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name if above else f"edgepress {name}", parent=above)
    yield f"{'#' * level} {context.command_path.removeprefix('edgepress ')}"
    usage = f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"
    yield f"```text\n{usage}\n```"
    yield cell(inspect.cleandoc(command.help or "").replace("\b", ""))
    if isinstance(command, click.Group):
        for below, one in command.commands.items():
            yield from _verb(one, below, context, level + 1)
        return
    records = [one.get_help_record(context) for one in command.get_params(context)]
    rows = [(f"`{record[0]}`", cell(record[1])) for record in records if record and record[1]]
    yield table(("option", "meaning"), rows)
    if command.epilog:
        yield "\n\n".join(cell(part) for part in command.epilog.split("\n\n"))


def passes() -> str:
    """Every pass with its paper and its options."""
    parts = [
        "# Passes\n\nThe passes that a recipe may have, and the options of each; `edgepress recipe passes`."
    ]
    for one in all_passes():
        text = inspect.cleandoc(str(sys.modules[pass_type(one["name"]).__module__].__doc__))
        aliases = [f"- former name `{old}`: {cell(new)}" for old, new in one["aliases"].items()]
        parts += [f"## {one['name']}", _prose(text), f"Needs text: {cell(one['text'])}.", *aliases]
        parts.append(_options(one["name"]))
    parts += ["## training", "How passes train: in a recipe for all of them, or inside a pass for that one."]
    return "\n\n".join([*parts, _options(TRAINING)]) + "\n"


def _prose(text: str) -> str:
    """Paragraphs of a docstring, without the marks of its markup."""
    return "\n\n".join(cell(re.sub(r":\w+:`", "`", part.replace("``", "`"))) for part in text.split("\n\n"))


def _options(name: str) -> str:
    rows = []
    for one in options_of(name):
        default = f"`{as_yaml(one['default'])}`" if "default" in one else "needed"
        rows.append((f"`{one['name']}`", cell(one["type"]), default, cell(one["description"])))
    return table(("option", "type", "default", "meaning"), rows)


def recipes() -> str:
    """The packaged recipes: what each is for, what it gave, and its text."""
    parts = [
        "# Packaged recipes",
        "`edgepress recipe show NAME` prints one; copy it to change it. Cost: of a ",
    ]
    parts[1] += (
        "compression of SmolLM2-135M with 16 × 512 tokens on one core. KL and perplexity on held-out "
        "Wikipedia, by which recipes were chosen; on news: on sealed text, by which nothing was. MB of "
        "bundles as they are exported by default."
    )
    for name in names():
        found = about(name)
        rows = [
            ("for", cell(found.purpose)),
            ("cost", cell(found.cost)),
            ("text", "yes" if found.text else "no"),
        ]
        rows += [("SmolLM2-135M", cell(found.smollm2 or "not measured"))]
        rows += [("MiniLM", cell(found.minilm or "not measured"))]
        parts += [f"## {name}", table(("", ""), rows), f"```yaml\n{text_of(name)[0].rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def recipe_schema() -> str:
    """The keys of a recipe; the whole JSON Schema is a file beside the page."""
    found = schema()
    text = json.dumps(
        {key: one for key, one in found["properties"].items() if key not in ("passes", TRAINING)}, indent=2
    )
    return (
        "# Recipe schema\n\nAn editor checks recipes with [recipe.schema.json](recipe.schema.json), which "
        "`edgepress recipe schema` prints. `passes:` is a list of [passes](passes.md), `training:` has the "
        f"options [there](passes.md#training). The other keys:\n\n```json\n{text}\n```\n"
    )


def schema_file() -> str:
    """The JSON Schema of recipes."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def python_api() -> str:
    """The public functions, and what ``open_bundle`` returns."""
    package = sys.modules[__package__.partition(".")[0]]
    parts = [
        "# Python API\n\nFunctions of `edgepress`, loaded when they are first used. What a caller can do "
        "wrong ends in a [typed error](errors.md)."
    ]
    functions = {name: getattr(package, name) for name in package.__all__ if name != "__version__"}
    for name, function in functions.items():
        parts += [f"## {name}", _signature(name, function), _documented(function)]
    from ...runtime.api import EmbeddingModel, TextModel
    from ...runtime.engine.classify import ClassifierModel
    from ...runtime.engine.tag import TaggerModel

    for kind in (TextModel, EmbeddingModel, ClassifierModel, TaggerModel):
        parts += [f"## {kind.__name__}", _documented(kind)]
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                parts += [f"### {kind.__name__}.{name}", _signature(name, method), _documented(method)]
    return "\n\n".join(parts) + "\n"


def _signature(name: str, function: Callable[..., Any]) -> str:
    stated = inspect.signature(function)
    parameters = [one for key, one in stated.parameters.items() if key != "self"]
    lines, keyword_only = [], False
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not keyword_only:
            lines.append("*")
            keyword_only = True
        default = "" if one.default is one.empty else f" = {one.default!r}"
        stars = "**" if one.kind is one.VAR_KEYWORD else ""
        lines.append(f"{stars}{one.name}: {one.annotation}{default}")
    inside = "".join(f"\n    {line}," for line in lines)
    returned = stated.return_annotation
    arrow = "" if returned is stated.empty else f" -> {getattr(returned, '__name__', returned)}"
    return f"```python\n{name}({inside}{chr(10) if inside else ''}){arrow}\n```"


def _documented(thing: Any) -> str:
    """A docstring: its prose, and its sections as they are written."""
    prose: list[str] = []
    for part in inspect.cleandoc(thing.__doc__ or "").split("\n\n"):
        heading, _, rest = part.partition("\n")
        sections = ("Args:", "Raises:", "Returns:", "Yields:")
        prose.append(
            f"**{heading}**\n\n```text\n{inspect.cleandoc(rest).replace('``', '`')}\n```"
            if heading in sections
            else _prose(part)
        )
    return "\n\n".join(prose)


def error_codes() -> str:
    """Every typed error with its code, exit code and what it says to do."""

    def below(kind: type[errors.EdgepressError]) -> Iterator[type[errors.EdgepressError]]:
        yield kind
        for one in kind.__subclasses__():
            if one.__module__ == errors.__name__:
                yield from below(one)

    parts = ["# Error codes", _prose(inspect.cleandoc(errors.__doc__ or "").replace("``", "`"))]
    parts.append(
        "On the terminal an error says what happened, why, and what to do. With `--json` it is one document "
        'on stdout: `{"error": {"code", "exit_code", "what", "why", "fix"}}`.'
    )
    for kind in below(errors.EdgepressError):
        said = _prose(inspect.cleandoc(kind.__doc__ or ""))
        fix = f"What to do, unless the message says it better: {cell(kind.way_out)}." if kind.way_out else ""
        parts += [f"## {kind.code}", f"`{kind.__name__}`, exit code {kind.exit_code}. {said}", fix]
    return "\n\n".join(part for part in parts if part) + "\n"


def targets() -> str:
    """The machines that are known."""
    rows = []
    for name in target_names():
        known = target(name)
        rows.append((f"`{name}`", cell(known.title), _figure(known.memory), _figure(known.bandwidth)))
    return (
        "# Targets\n\nSpecifications of machines, never measurements on them; `edgepress devices show NAME` "
        "has each number with its source and confidence.\n\n"
        + table(("name", "machine", "memory", "bandwidth"), rows)
        + "\n"
    )


def _figure(figure: Any) -> str:
    if figure is None:
        return "–"
    upper = f" to {figure.up_to:g}" if figure.up_to else ""
    return f"{figure.value:g}{upper} {figure.unit}"


# The generated pages of the site, by their place.
PAGES: dict[str, Callable[[], str]] = {
    "reference/verbs.md": verbs,
    "reference/passes.md": passes,
    "reference/recipes.md": recipes,
    "reference/recipe-schema.md": recipe_schema,
    "reference/recipe.schema.json": schema_file,
    "reference/python-api.md": python_api,
    "reference/targets.md": targets,
    "reference/errors.md": error_codes,
}
