"""The command line: verbs, each a file on the floor that does its work (``compress/verbs/compress.py``).

A floor is imported only when its verb runs, so that ``--help`` answers at once. This file alone turns
exceptions into messages and exit codes.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from . import __version__
from .errors import EdgepressError, UnknownName

VERBS = {
    "compress": ("compress", "Compress a model with a recipe or a scheme."),
    "export": ("export", "Export a checkpoint to a bundle that runs on a device."),
    "validate": ("benchmarks", "Compare a bundle or checkpoint with the original on a text."),
    "profile": ("benchmarks", "Measure latency and memory of a bundle on this machine."),
    "generate": ("runtime", "Stream text from a decoder bundle."),
    "encode": ("runtime", "Turn sentences into embeddings with an encoder bundle."),
    "compare": ("benchmarks", "Put measured runs side by side in the terminal."),
    "report": ("benchmarks", "Write one self-contained HTML page from measured runs."),
    "inspect": ("compress", "Show what a checkpoint or bundle holds."),
    "verify": ("runtime", "Check every file of a bundle or checkpoint against its manifest."),
    "recipe": ("compress", "List, show and check recipes."),
    "devices": ("devices", "List known targets and probe this machine."),
    "doctor": ("devices", "Check the installation and say how to fix it."),
    "demo": ("benchmarks", "The whole chain on two small real models."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = import_module(f".{VERBS[cmd_name][0]}.verbs.{cmd_name}", __package__)
        return module.command  # type: ignore[no-any-return]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            raise UnknownName("verb", args[0], VERBS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgepress")
def edgepress() -> None:
    """Make a trained transformer small and fast enough for its machine, and prove it."""


def _fail(error: EdgepressError, arguments: list[str]) -> int:
    if "--json" in arguments:
        import json

        print(json.dumps({"error": error.as_dict()}, indent=2, ensure_ascii=False))
    else:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
    return error.exit_code


def _internal(error: Exception) -> int:
    import traceback

    traceback.print_exception(error)
    print(
        f"error [E-INTERNAL]: a bug in edgepress {__version__}: {type(error).__name__}: {error}\n"
        "→ please report it with the lines above",
        file=sys.stderr,
    )
    return 70


def run(arguments: list[str] | None = None) -> int:
    """Run the CLI and return its exit code; never raises but for exit by signal."""
    try:
        outcome = edgepress.main(args=arguments, prog_name="edgepress", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except EdgepressError as error:
        return _fail(error, sys.argv[1:] if arguments is None else arguments)
    except click.exceptions.Abort:
        print("interrupted", file=sys.stderr)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the CLI's edge is where unknown errors end
        return _internal(error)


def main() -> NoReturn:
    """The console script."""
    sys.exit(run())
