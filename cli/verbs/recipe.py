"""``edgepress recipe list | show NAME | check FILE | schema``."""

from __future__ import annotations

import click

from ...terminal import Terminal


@click.group("recipe", short_help="List, show and check recipes.")
def command() -> None:
    """Recipes: what to do to a model, as YAML."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True)
def list_recipes(as_json: bool) -> None:
    """The recipes that come with edgepress."""
    from ...errors import require

    require("torch", "compress")
    from ...compress.recipe import load_recipe, names

    recipes = {name: load_recipe(name).summary for name in names()}
    text = "\n".join(f"{name:<20} {summary}" for name, summary in recipes.items())
    Terminal(as_json=as_json).document(recipes, text)


@command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The recipe with every default filled in.")
def show(name: str, as_json: bool) -> None:
    """Print the recipe NAME (or a YAML file) after checking it."""
    from ...errors import require

    require("torch", "compress")
    from ...compress.recipe import load_recipe, text_of

    recipe = load_recipe(name)
    Terminal(as_json=as_json).document(
        {**recipe.as_dict(), "sha256": recipe.sha256}, text_of(name)[0].rstrip()
    )


@command.command("check")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True)
def check(file: str, as_json: bool) -> None:
    """Check a recipe file: keys, values, passes."""
    from ...errors import require

    require("torch", "compress")
    from ...compress.recipe import load_recipe

    recipe = load_recipe(file)
    document = {"ok": True, "name": recipe.name, "summary": recipe.summary, "sha256": recipe.sha256}
    Terminal(as_json=as_json).document(document, f"{file}: ok, {recipe.summary}")


@command.command("schema")
def schema_() -> None:
    """The JSON Schema of recipes, for editors."""
    from ...errors import require

    require("torch", "compress")
    from ...compress.recipe import schema

    Terminal(as_json=True).document(schema())
