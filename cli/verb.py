"""What all verbs have in common: ``--json``, ``-q`` and ``-v``, the command as it was given, and
old spellings of options, which work and are not shown.

The verbs and what each does, in groups as a user looks for them, and the variables that all read.
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
# In the order in which a model goes through them; the four that most people need come first.
GROUPS = {
    "Make it smaller and faster": {
        "compress": "Compress a model with a recipe or a scheme.",
        "export": "Export a checkpoint to a bundle that runs on a device.",
        "profile": "Measure latency and memory of a bundle, here or on other machines.",
        "fit": "Find the best bundle within budgets of size, speed and quality.",
    },
    "Know what it lost, and decide": {
        "validate": "Compare a bundle or checkpoint with the original on a text.",
        "predict": "Predict latency and memory of a bundle before it is measured.",
        "compare": "Put measured runs side by side in the terminal.",
        "report": "Write one self-contained HTML page from measured runs.",
    },
    "Run a bundle": {
        "generate": "Stream text from a decoder bundle.",
        "encode": "Turn sentences into embeddings.",
        "classify": "Name the label of each text.",
        "tag": "Name the spans of each text, such as names in it.",
        "rerank": "Order texts by how well they answer a query.",
    },
    "Look at files, and pass them on": {
        "inspect": "Show what a checkpoint or bundle holds.",
        "verify": "Check every file of a bundle or checkpoint against its manifest.",
        "sign": "Sign a bundle or checkpoint: others can verify who made it.",
        "push": "Upload a bundle to the Hugging Face Hub.",
        "package": "Put bundles for several providers into one ONNX Runtime package.",
    },
    "Find out what there is": {
        "recipe": "List, show and check recipes; list passes and their options.",
        "devices": "List targets, probe this machine, add others over ssh.",
        "doctor": "Check the installation and say how to fix it.",
        "demo": "The whole chain on a small real model, in two minutes.",
    },
}
VERBS = {name: said for group in GROUPS.values() for name, said in group.items()}
# Verbs of other tools, and the whole line that does the same here.
ELSEWHERE = {
    "chat": 'edgepress generate BUNDLE --prompt "…"',
    "convert": "edgepress export CHECKPOINT -o BUNDLE",
    "gguf": "edgepress export CHECKPOINT --format gguf -o OUT",
    "mlx": "edgepress export CHECKPOINT --format gguf -o OUT (for llama.cpp; there is no form for MLX)",
    "prune": "edgepress compress MODEL --recipe RECIPE --text TEXT -o OUT, with a pass that prunes",
    "quantize": "edgepress compress MODEL --scheme W4A16 -o OUT",
    "run": 'edgepress generate BUNDLE --prompt "…"',
    "search": "edgepress fit MODEL --max-disk 75MB --text TEXT -o OUT",
    "serve": "vllm serve CHECKPOINT (edgepress has no server; it measures that one: profile --engine vllm)",
    "tflite": "edgepress export CHECKPOINT --for standard -o BUNDLE (ONNX; there is no TFLite)",
}
FIRST_STEPS = (
    "edgepress compress smollm2 --scheme W4A16 -o small",
    "edgepress export small -o bundle",
    "edgepress profile bundle --quick",
    "edgepress fit smollm2 --max-disk 75MB --text wikipedia -o fitted",
)
ENVIRONMENT = {
    "EDGEPRESS_CACHE": "Where made models are kept, instead of the user's cache directory.",
    "EDGEPRESS_KERNELS": "off: without edgepress's own operators; avx2, plain, …: with these instructions.",
    "EDGEPRESS_KERNELS_LIBRARY": "Another library of them.",
    "EDGEPRESS_KEY_PASSWORD": "Opens the encrypted key of `sign --key`.",
    "EDGEPRESS_METER": "A meter's CSV log that grows while `profile` runs; later: it is imported afterwards.",
    "EDGEPRESS_VLLM": "The vllm (or Python) of its own environment, for `profile --engine vllm`.",
    "EDGEPRESS_WHEELS": "A folder of wheels to send to devices, instead of pip's package index.",
    "HF_HOME, HF_HUB_OFFLINE": "Hugging Face's cache, and whether --download may use the network.",
    "NO_COLOR": "No colours.",
}


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


def write_verbs(formatter: click.HelpFormatter) -> None:
    """Write commands to begin with, and every verb in its group."""
    with formatter.section("First steps"):
        for line in FIRST_STEPS:
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")
    widest = max(map(len, VERBS))
    for title, verbs in GROUPS.items():
        with formatter.section(title):
            formatter.write_dl([(f"{name:{widest}}", said) for name, said in verbs.items()])


def write_environment(formatter: click.HelpFormatter) -> None:
    """Write the variables, and how a shell learns to complete."""
    with formatter.section("Environment"):
        formatter.write_dl(list(ENVIRONMENT.items()))
    with formatter.section("Completion"):
        formatter.write_text('bash: eval "$(_EDGEPRESS_COMPLETE=bash_source edgepress)"')
        formatter.write_text('zsh: eval "$(_EDGEPRESS_COMPLETE=zsh_source edgepress)" after compinit')
        formatter.write_text("fish: _EDGEPRESS_COMPLETE=fish_source edgepress | source")
