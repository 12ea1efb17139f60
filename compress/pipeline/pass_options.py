"""What a recipe says of one pass, as the pass reads it: old names become new ones, fixed options are checked.

Options that moved into ``training`` are accepted where they stood.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from ...errors import RecipeError
from ...plugins import load
from .algorithm import Pass
from .block_pass import BlockPass
from .pass_names import PACKAGE, PASS_ALIASES, TRAINING_ALIASES, Alias, as_yaml


def pass_type(name: str) -> type[Pass]:
    """The class of the pass called ``name``."""
    return load(PACKAGE, name, "pass").PASS  # type: ignore[no-any-return]


@dataclass(frozen=True)
class PassOptions:
    """A pass, the options that a recipe gives it, and what to say of the names that the recipe used."""

    name: str
    kind: type[Pass]
    options: dict[str, Any]
    notes: tuple[str, ...] = ()


def read_options(name: str, given: Mapping[str, Any], shared: Mapping[str, Any] | None = None) -> PassOptions:
    """The options ``given`` to the pass ``name``; ``shared`` is the recipe's ``training`` section."""
    old = name.replace("-", "_")
    alias = PASS_ALIASES.get(old, Alias(name))
    kind, options, notes = pass_type(alias.name), dict(given), []
    if old in PASS_ALIASES:
        notes.append(f"the pass {old} is now {alias.summary}")
        if twice := sorted(alias.options.keys() & options.keys()):
            raise RecipeError(f"{old} has no option {twice[0]!r}", fix=f"write {alias.summary}")
        options |= alias.options
    _check_fixed(alias.name, kind, options)
    if "training" in kind.model_fields:
        notes += _gather_training(alias, kind, options, shared or {})
    if isinstance(options.get("using"), Mapping) and "pass" in options["using"]:
        inner = dict(options["using"])
        read = read_options(str(inner.pop("pass")), inner)
        options["using"], notes = {"pass": read.name, **read.options}, [*notes, *read.notes]
    return PassOptions(alias.name, kind, options, tuple(notes))


def inner_pass(using: Mapping[str, Any], needed: str, **own: Any) -> BlockPass:
    """The block pass that another pass runs and names in its option ``using: {pass: NAME, …}``, with its
    options and those in ``own``, which it may not set.
    """
    options = {key: value for key, value in using.items() if key != "pass"}
    if "pass" not in using or own.keys() & options.keys():
        raise ValueError(f"using names a pass and its options but {', '.join(own)}")
    read = read_options(str(using["pass"]), options)
    if not issubclass(read.kind, BlockPass) or needed not in read.kind.model_fields:
        raise ValueError(f"using: {using['pass']} works on no block by itself or has no {needed}")
    try:
        return read.kind.model_validate({**read.options, **own})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"using: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def training_type(kind: type[Pass]) -> type[BaseModel]:
    """The model of the ``training`` section of a pass that has one."""
    return type(kind.model_fields["training"].default)


def _check_fixed(name: str, kind: type[Pass], options: dict[str, Any]) -> None:
    """Drop what says the value that an option is fixed at, and refuse any other."""
    for key, fixed in kind.fixed.items():
        if key not in options:
            continue
        if _plain(options[key]) != _plain(fixed.value):
            raise RecipeError(
                f"{key} of {name} is fixed at {as_yaml(fixed.value)} (given: {as_yaml(options[key])})",
                why=fixed.why,
                fix="leave it out",
            )
        del options[key]


def _gather_training(
    alias: Alias, kind: type[Pass], options: dict[str, Any], shared: Mapping[str, Any]
) -> list[str]:
    """Put the ``training`` section of a pass together: the recipe's, then the pass's own; returns notes."""
    known = training_type(kind).model_fields
    own = options.get("training", {})
    if not isinstance(own, Mapping):
        return []  # for the pass to refuse
    names = {**{key: key for key in known}, **{a: b for a, b in TRAINING_ALIASES.items() if b in known}}
    moved = {key: options.pop(key) for key in list(options) if key in names}
    flat = {names[key]: value for key, value in moved.items()}
    if twice := sorted(flat.keys() & own.keys()):
        raise RecipeError(f"{twice[0]} of {alias.name} is given twice", fix="keep the one in training")
    fitting = {key: value for key, value in shared.items() if key in known}
    options["training"] = {**alias.training, **fitting, **renamed_training(own), **flat}
    if not moved:
        return []
    said = ", ".join(f"`{key}`" for key in moved)
    place = f"training.{next(iter(flat))}" if len(moved) == 1 else "in training: {" + ", ".join(flat) + "}"
    return [f"{said} of {alias.name} {'is' if len(moved) == 1 else 'are'} now {place}"]


def renamed_training(given: Mapping[str, Any]) -> dict[str, Any]:
    """A ``training`` section with the old names of its options replaced."""
    return {TRAINING_ALIASES.get(key, key): value for key, value in given.items()}


def _plain(value: Any) -> Any:
    """Tuples as lists, so that values of YAML and of Python compare."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
