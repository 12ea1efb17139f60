"""What a shell completes beside options: recipes, schemes, passes, formats, targets and models, by name."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class ModelName(click.types.StringParamType):
    """What names a model; of the address of its page on the hub, the id."""

    name = "model"
    _page = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)(?:[/?#].*)?")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        value = super().convert(value, param, ctx)
        found = self._page.fullmatch(value)
        return found[1] if found else value


def _completing(known: Callable[[], Iterable[str]], *, or_file: bool = False) -> Completion:
    """Completes the names that ``known`` returns; with ``or_file`` also what lies here, or any path where no
    name begins so.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        begun = [name for name in known() if name.lower().startswith(incomplete.lower())]
        if or_file and not begun:
            return [CompletionItem(incomplete, type="file")]
        here = _files(incomplete) if or_file else []
        return [CompletionItem(name) for name in [*begun, *here]]

    return complete


def _files(begun: str) -> list[str]:
    """The files and folders of this folder whose names begin so and need no quotes.

    click's scripts let a shell complete paths or a list of words, not both.
    """
    names = (path.name for path in Path().glob("[!.]*"))
    return sorted(name for name in names if name.startswith(begun) and re.fullmatch(r"[\w.+-]+", name))


def _recipes() -> list[str]:
    from ..compress.recipe_files import names

    return names()


def _schemes() -> list[str]:
    from ..compress.numbers.scheme import PRESETS

    return list(PRESETS)


def _passes() -> list[str]:
    from ..compress.pipeline.pass_names import choices

    return choices()


def _targets() -> list[str]:
    from ..devices.target import target_names

    return target_names()


def _devices() -> list[str]:
    from ..devices.own_devices import own_devices

    return list(own_devices())


def _models() -> list[str]:
    from ..compress.model.model_names import DEMO_PACKAGES

    return list(DEMO_PACKAGES)


def _formats() -> list[str]:
    from ..plugins import names

    return [name.replace("_", "-") for name in names("edgepress.export.formats")]


def _engines() -> list[str]:
    from ..plugins import names

    return [name.replace("_", "-") for name in names("edgepress.benchmarks.serving.engines")]


def _slices() -> list[str]:
    from ..benchmarks.quality.subgroups.measure_slices import ALL, chosen_slices

    return [ALL, *chosen_slices([ALL])]


def _protected() -> list[str]:
    from ..benchmarks.quality.subgroups.items import PROTECTED, with_calibration

    return [f"{PROTECTED}{name}" for name in with_calibration()]


def _texts() -> list[str]:
    from ..compress.text.corpus import CORPORA

    return list(CORPORA)


recipes = _completing(_recipes, or_file=True)
schemes = _completing(_schemes)
slices = _completing(_slices)
protected = _completing(_protected)
passes = _completing(_passes)
targets = _completing(_targets)
devices = _completing(_devices)
places = _completing(lambda: ["here", *_devices()])
models = _completing(_models, or_file=True)
formats = _completing(_formats)
engines = _completing(_engines)
texts = _completing(_texts, or_file=True)
