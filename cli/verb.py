"""What all verbs have in common: ``--json``, ``-q`` and ``-v``, the command as it was given, and
old spellings of options, which work and are not shown.
"""

import shlex
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import click

from ..terminal.progress import Terminal
from .help_sections import write_commands, write_examples, write_options

Function = Callable[..., Any]
GIVEN = "edgepress.given"  # of a context: the words after the program's name


class Verb(click.Command):
    """A command that knows old spellings of its options: ``old`` maps them to the ones of today."""

    def __init__(self, *args: Any, old: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.old = dict(old or {})

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.name, formatter)
        write_options(self, ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*map(self._today, args[:end]), *args[end:]])

    def _today(self, word: str) -> str:
        name, equals, value = word.partition("=")
        return f"{self.old[name]}{equals}{value}" if name in self.old else word


class VerbGroup(click.Group):
    """A verb with verbs of its own."""

    command_class = Verb

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.name, formatter)
        write_commands(self, formatter)
        click.Command.format_options(self, ctx, formatter)


def given_command() -> str:
    """The command that runs, as it was given, for the record of what it measures."""
    return shlex.join(["edgepress", *click.get_current_context().meta[GIVEN]])


def output(function: Function) -> Function:
    """``--json``, ``-q`` and ``-v``; the function gets the :class:`Terminal` that they make: ``terminal``."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors.")
    @click.option("-v", "--verbose", is_flag=True, help="Every step on stderr, and where an error arose.")
    @wraps(function)
    def wrapped(*args: Any, as_json: bool, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
        try:
            return function(*args, terminal=terminal, **kwargs)
        finally:
            terminal.close()

    return wrapped
