"""``edgepress recipe list | show NAME | check FILE | passes [NAME] | schema``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ...compress.pipeline.pass_names import as_yaml
from ...terminal.progress import Terminal, print_json
from .. import completion
from ..verb import VerbGroup, output

if TYPE_CHECKING:
    from ...compress.recipe import Recipe
    from ...compress.recipe_files import About


@click.group("recipe", cls=VerbGroup)
def command() -> None:
    """Recipes: what to do to a model, as YAML."""


@command.command("list")
@click.option("--figures", is_flag=True, help="Also what each gave on the demo models.")
@output
def list_recipes(figures: bool, terminal: Terminal) -> None:
    """The recipes that come with edgepress: purpose and cost; with --figures what each gave."""
    from ...compress.recipe_files import about, names

    recipes = {name: about(name) for name in sorted(names(), key=_presets_first)}
    document = {name: found.model_dump() for name, found in recipes.items()}
    lines = [line for name, found in recipes.items() for line in _lines_of(name, found, figures=figures)]
    terminal.document(document, "\n".join(lines + (_OF_FIGURES if figures else _FOOTNOTE)))


_PRESETS = ("fast", "balanced", "best")
_COST = [
    "",
    "Cost: of `edgepress compress` with SmolLM2-135M and 16 × 512 tokens, one core.",
]
_BEGIN = "Begin with fast (no text, seconds), balanced (minutes) or best; encoders: w8a8."
_FOOTNOTE = [
    *_COST,
    "What each gave: edgepress recipe list --figures. One: edgepress recipe show NAME",
    _BEGIN,
]
_OF_FIGURES = [
    *_COST,
    "KL and perplexity against the original in float32: on held-out Wikipedia, by",
    'which recipes were chosen; "on news": on sealed text, by which nothing was. MB',
    "of bundles as they are exported by default. See one: edgepress recipe show NAME",
    _BEGIN,
]


def _presets_first(name: str) -> tuple[int, str]:
    return (_PRESETS.index(name) if name in _PRESETS else len(_PRESETS), name)


def _lines_of(name: str, about: About, *, figures: bool) -> list[str]:
    """The lines of one recipe."""
    text = "needs text" if about.text else "no text"
    cost = f"cost: {about.cost}; {text}"
    warned = [f"model sizes: {about.sizes}"] if about.sizes.startswith("not for") else []
    lines = [about.purpose, cost, *(_gave(about) if figures else warned)]
    wrapped = [part for line in lines for part in textwrap.wrap(line, 80 - 20)]
    return [f"{name if not index else '':<19} {part}" for index, part in enumerate(wrapped)]


def _gave(about: About) -> list[str]:
    measured = {"SmolLM2": about.smollm2, "MiniLM": about.minilm}
    gave = [f"{model}: {found}" for model, found in measured.items() if found]
    instead = [f"instead: {about.instead}"] if about.instead else []
    return [f"model sizes: {about.sizes}", *(gave or ["what it gives: not measured"]), *instead]


def _loaded(name: str) -> Recipe:
    """The recipe, after what is misspelt was refused without torch."""
    from ...compress.recipe_files import check_words
    from ...errors import require

    check_words(name)
    require("torch", "compress")
    from ...compress.recipe import load_recipe

    return load_recipe(name)


@command.command("show")
@click.argument("name", shell_complete=completion.recipes)
@output
def show(name: str, terminal: Terminal) -> None:
    """Print the recipe NAME (or a YAML file) after checking it."""
    from ...compress.recipe_files import text_of

    recipe = _loaded(name)
    for note in recipe.notes:
        terminal.progress.note(note)
    shown = text_of(name)[0].rstrip()
    terminal.document({**recipe.as_dict(), "sha256": recipe.sha256}, shown, as_written=True)


@command.command("check")
@click.argument("file", shell_complete=completion.recipes)
@output
def check(file: str, terminal: Terminal) -> None:
    """Check a recipe file: keys, values, passes."""
    recipe = _loaded(file)
    for note in recipe.notes:
        terminal.progress.note(note)
    document = {"ok": True, "name": recipe.name, "summary": recipe.summary, "sha256": recipe.sha256}
    terminal.document(document, f"{file}: ok, {recipe.summary}")


@command.command("passes", short_help="List passes; with NAME, the options of one.")
@click.argument("name", required=False, shell_complete=completion.passes)
@output
def passes(name: str | None, terminal: Terminal) -> None:
    """The passes that a recipe may have; with NAME the options of one, or of the section `training`."""
    from ...errors import require

    require("torch", "compress")
    from ...compress.pass_help import all_passes, options_of, resolved

    if name is None:
        found = all_passes()
        terminal.document(found, _list_of(found))
        return
    pass_name, alias = resolved(name)
    options = options_of(pass_name)
    heading = f"{name}: {alias}\n\n" if alias else ""
    terminal.document({"pass": pass_name, "options": options}, heading + _table_of(options))


@command.command("schema")
@output
def schema_(terminal: Terminal) -> None:
    """The JSON Schema of recipes, for editors."""
    from ...errors import require

    require("torch", "compress")
    from ...compress.pass_help import schema

    print_json(schema())


# Widths of the columns of both tables: 80 with the spaces between them.
_PASSES = (18, 44, 16)
_OPTIONS = (19, 17, 10, 31)


def _list_of(passes: list[dict[str, Any]]) -> str:
    rows = [("pass", "what it does", "needs text")]
    for one in passes:
        rows.append((one["name"], one["summary"], one["text"]))
    old = [f"{name}: {alias}" for one in passes for name, alias in one["aliases"].items()]
    wrapped = [line for one in sorted(old) for line in textwrap.wrap(one, 78, subsequent_indent="  ")]
    lines = [*_rows(rows, _PASSES), "", "Old names:", *(f"  {line}" for line in wrapped)]
    return "\n".join([*lines, "", "Options of one: edgepress recipe passes NAME"])


def _table_of(options: list[dict[str, Any]]) -> str:
    rows = [("option", "type", "default", "description")]
    for one in options:
        default = as_yaml(one["default"]) if "default" in one else "(needed)"
        rows.append((one["name"], one["type"], default, one["description"]))
    return "\n".join(_rows(rows, _OPTIONS))


def _rows(rows: Sequence[tuple[str, ...]], widths: tuple[int, ...]) -> list[str]:
    """``rows`` with each cell wrapped to the width of its column."""
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            padded = (part.ljust(width) for part, width in zip(parts, widths, strict=True))
            lines.append(" ".join(padded).rstrip())
    return lines
