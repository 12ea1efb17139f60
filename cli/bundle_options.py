"""Options that the verbs which run a bundle share, each written once."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, MissingDependency, UnknownName
from ..files.limits import LARGEST_SEED, MOST_THREADS
from ..files.storage import lines_of, read_regular

if TYPE_CHECKING:
    from ..runtime.session.needs import Needs
    from ..terminal.progress import Terminal

Command = Callable[..., Any]


class Number(click.FloatRange):
    """A finite number; not a number passes every comparison that a range makes."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{found} is not a finite number", param, ctx)
        return found


class Share(Number):
    """A fraction from 0 to 1, or a percentage: ``0.05``, ``5%``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.endswith("%"):
            value = click.FLOAT(value[:-1], param, ctx) / 100
        return super().convert(value, param, ctx)


class OutputDirectory(click.Path):
    """A directory to write; a name that looks like a file's is a misunderstanding, seen before any work."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        suffix = Path(value).suffix.lower()
        if suffix in (".gguf", ".onnx", ".safetensors", ".bin", ".zip"):
            self.fail(f"{value} becomes a directory: name it without {suffix}", param, ctx)
        return super().convert(value, param, ctx)


COUNT = click.IntRange(1, 1 << 20)
DEVICES = ("auto", "cpu", "cuda", "mps")
# What a driver of NVIDIA's makes: on Linux, on a Jetson, in the Linux of Windows.
DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvmap", "/dev/dxg")
SEED = click.IntRange(0, LARGEST_SEED)
LIMIT = Number(0)
SHARE = Share(0, 1)

threads = click.option(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    help="Threads that compute. [default: the cores this process may use]",
)


def torch_device(default: str, said: str) -> Callable[[Command], Command]:
    """``--device``; what cannot be is refused before torch is imported."""
    return click.option("--device", default=default, show_default=True, callback=_known_device, help=said)


def _known_device(context: click.Context, parameter: click.Parameter, name: str) -> str:
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise UnknownName("device", name, DEVICES, fix=f"--device is torch's: {', '.join(DEVICES)}")
    if kind == "cuda" and sys.platform == "linux" and not any(Path(one).exists() for one in DRIVERS):
        raise MissingDependency(
            f"device {name!r} is not available: no driver of NVIDIA's here",
            fix="see `edgepress doctor`, or use --device cpu",
        )
    return name


provider = click.option(
    "--provider", default="cpu", show_default=True, help="What runs it; edgepress doctor lists them."
)
text_file = click.option(
    "--text",
    "file",
    type=click.Path(path_type=Path),
    help="Read texts from a UTF-8 file, one a line; - is stdin.",
)
image = click.option(
    "--image",
    "shown",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="An image file, for a bundle that reads images. Repeatable.",
)
batch_size = click.option(
    "--batch-size", type=COUNT, default=32, show_default=True, help="Texts that are encoded at once."
)
max_memory = click.option(
    "--max-memory",
    type=Number(0, min_open=True),
    help="GB of memory that the plan may need; never more than what is free.",
)
dry_run = click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
download = click.option(
    "--download", is_flag=True, help="Fetch a hub id (OWNER/NAME) first; nothing is downloaded otherwise."
)


def session(command: Command) -> Command:
    """``--threads`` and ``--provider``: what opens a bundle."""
    return threads(provider(command))


def named_model(model: str, *, download: bool) -> None:
    """Refuse a word that names no model before anything heavy is imported; with ``download`` fetch it
    first.
    """
    from ..compress.model.checkpoint.policy import read_config
    from ..compress.model.model_names import directory_of, require_model
    from ..compress.model.model_names import download as fetch

    if download:
        fetch(model)
    require_model(model)
    directory = directory_of(model)
    known = ("config.json", "manifest.json", "adapter_config.json")
    if (
        directory is not None
        and directory.exists()
        and not any((directory / name).exists() for name in known)
    ):
        read_config(directory)  # which says what it lacks


def limit_torch(threads: int | None) -> None:
    """Let torch compute with so many threads."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def given_texts(texts: tuple[str, ...], file: Path | None, verb: str, *, images: bool = False) -> list[str]:
    """The texts that ``verb`` is given: as words of the command, and as lines of a file."""
    lines = [*texts, *(text_lines(file) if file else [])]
    if not lines:
        others = ", or images with --image" if images else ""
        fix = f"give texts as arguments, or a file with --text{others}"
        raise InputError(f"there is nothing to {verb}", fix=fix)
    return lines


def text_lines(file: Path) -> list[str]:
    """The lines of ``file`` that are not blank."""
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else read_regular(file)
        text = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8").read()
        return [line for line in lines_of(text) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read texts from {file}", why=str(error)) from None


def print_plan(terminal: Terminal, needs: Needs, output: Path, most: float | None) -> None:
    """Show what work needs of this machine."""
    available = needs.require(output, most)
    terminal.document({**needs.as_dict(), "available": available}, needs.table(available, output))
