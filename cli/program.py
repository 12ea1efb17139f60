"""The program and its verbs, each a file on the floor that does its work (``cli/verbs/compress.py``).

A floor is imported only when its verb runs, so that ``--help`` answers at once.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TextIO

import click

from .. import __version__
from ..errors import UnknownName
from .verb import ELSEWHERE, GIVEN, VERBS, write_environment, write_verbs

SHORT = "edgepress.short"  # of a context: help without what a first look has no use for


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """End quietly when nobody reads stdout any more (``| head -1``); rich makes a SystemExit of it."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        discard(sys.stdout)
        raise click.exceptions.Exit(0) from None


def discard(stream: TextIO) -> None:
    """Let what is still written to ``stream`` go nowhere; the interpreter flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = import_module(f".verbs.{cmd_name}", __package__)
        return module.command  # type: ignore[no-any-return]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            line = ELSEWHERE.get(args[0], "")
            raise UnknownName("verb", args[0], VERBS, fix=line and f"here it is: {line}")
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        given = list(args)  # click takes words off the list
        with _reader_may_leave():  # --help and --version print here
            context = super().make_context(info_name, args, parent, **extra)
        context.meta[GIVEN] = given
        return context

    def invoke(self, ctx: click.Context) -> object:
        with _reader_may_leave():
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[SHORT] = not args
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "VERB [OPTIONS] …")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_verbs(formatter)
        if ctx.meta.get(SHORT):
            formatter.write("\nOptions of a verb: edgepress VERB --help. Variables: edgepress --help\n")
            return
        click.Command.format_options(self, ctx, formatter)
        write_environment(formatter)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgepress")
def edgepress() -> None:
    """Make a trained transformer small and fast enough for its machine, and prove it."""
