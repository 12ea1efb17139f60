"""``take_kept``: the trials in a search's folder that it did not come to, so that the report has all of them:
those of other processes, of a run that was stopped, or for other budgets of the same model and text.
"""

from collections.abc import Sequence
from pathlib import Path

from ..compress.pipeline.journal import read_sealed
from ..terminal.progress import Silent
from .candidates import Space
from .methods import Method
from .search import Search
from .trials import CHOICE, Trial, directory_of, is_made


def take_kept(search: Search) -> None:
    """Learn from them, where they are whole and choices of the candidates."""
    known = {trial.key for trial in search.trials}
    for directory in sorted(search.folder.iterdir()):
        trial = _kept(search, directory, known)
        if trial is not None:
            search.take(trial)


def _kept(search: Search, directory: Path, known: set[str]) -> Trial | None:
    choice = read_sealed(directory / CHOICE)
    if choice is None or not is_made(search.setting, directory):
        return None
    method, options = Method(**choice["method"]), tuple(choice["options"])
    spaces = search.choices.spaces
    if not spaces.is_ready(method.space) or not _is_choice(options, spaces.of(method.space)):
        return None
    key = search.key(options, method)
    if key in known or directory != directory_of(key, search.folder):
        return None
    return search.ran(options, method, choice["predicted"], Silent())


def _is_choice(options: Sequence[int], space: Space) -> bool:
    """Whether each unit has such an option."""
    if len(options) != len(space.units):
        return False
    return all(option < len(unit.options) for option, unit in zip(options, space.units, strict=True))
