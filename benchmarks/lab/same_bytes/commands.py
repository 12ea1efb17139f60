"""What is recorded beside outputs: how a call is refused, every option of every pass, and the command line.

Each verb runs as a user has it, in a process of its own: its exit code, the code of its error, the names in
its JSON document, and the hashes of the files it writes.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from .... import plan_model
from ....errors import EdgepressError
from ....files.storage import sha256_file
from .file_hashes import json_hash

# Run one after the other in one folder; MODELS and TEXT are filled in. The document of a command with `=` in
# front is hashed whole, since neither time nor the machine is in it.
COMMANDS = Path(__file__).with_name("commands.txt")
# Files of these commands that are the same bytes every time.
FILES = ("rows.npy",)


def command_hashes(place: Path, paths: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The name of each command with what it gave, run in the folder ``place``."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    environment = os.environ | {"EDGEPRESS_CACHE": str(place / "cache")}
    for number, line in enumerate(COMMANDS.read_text(encoding="utf-8").splitlines(), 1):
        words = [_filled(word, paths) for word in shlex.split(line.removeprefix("="))]
        done = subprocess.run(
            [sys.executable, "-m", "edgepress", *words],
            cwd=place,
            env=environment,
            capture_output=True,
            check=False,
        )
        found = {"exit": str(done.returncode)}
        if "--json" in words:
            found |= _document(done.stdout, whole=line.startswith("="))
        found |= {name: sha256_file(place / name) for name in FILES if name in words}
        yield f"command/{number:02} {line.removeprefix('=')}", found


def _filled(word: str, paths: dict[str, str]) -> str:
    head, slash, tail = word.partition("/")
    return paths.get(head, head) + slash + tail


def _document(output: bytes, *, whole: bool) -> dict[str, str]:
    try:
        content = json.loads(output)
    except ValueError:
        return {"document": "is no JSON"}
    error = content.get("error") if isinstance(content, dict) else None
    if isinstance(error, dict):
        return {"error": str(error.get("code"))}
    found = dict.fromkeys(_names(content, ""), "there")
    return found | ({"document": json_hash(content)} if whole else {})


def _names(content: Any, path: str) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield f"{path}.{key}"
            yield from _names(value, f"{path}.{key}")
    if isinstance(content, list):
        for value in content:
            yield from _names(value, f"{path}[]")


OPTIONS = Path(__file__).with_name("options.yaml")


def key_hashes(place: Path, models: str) -> Iterator[tuple[str, dict[str, str]]]:
    """For each pass, each option: accepted, or how it is refused; recipes are written to ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    recipe = place / "option.yaml"
    for name, known in yaml.safe_load(OPTIONS.read_text(encoding="utf-8")).items():
        model = f"{models}/{'qwen3_moe' if name == 'experts' else 'llama'}"
        found = {}
        for option, value in {**known["options"], **known["with"]}.items():
            step = {"pass": name, **known["with"], option: value}
            recipe.write_text(yaml.safe_dump({"name": "keys", "passes": [step]}), encoding="utf-8")
            found[option] = refusal(partial(plan_model, model, recipe=str(recipe))) or "accepted"
        yield f"keys/{name}", found


# What a bug raises; it is recorded, so that one does not hide the cases behind it.
BUGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def refusal(work: Callable[[], object]) -> str | None:
    """The error of ``work``, such as ``refused E-RECIPE, exit 2``; None where there was none."""
    try:
        work()
    except EdgepressError as error:
        print(f"  {error.what}", flush=True)
        return f"refused {error.code}, exit {error.exit_code}"
    except BUGS as error:
        print(f"  {type(error).__name__}: {error}", file=sys.stderr)
        return f"bug {type(error).__name__}"
    return None
