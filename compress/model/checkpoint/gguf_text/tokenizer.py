"""The tokenizer of a GGUF file, built in a child process under limits and saved as ``tokenizer.json``."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from .....errors import CheckpointError, RefusedByPolicy
from .....files.disk import disk_full_is_typed
from .....files.storage import read_json
from .....files.third_party_errors import third_party_errors_are_typed
from .....runtime.text.child_process import ChildProcess, Limits
from ..gguf_header import GgufHeader
from ..gguf_words import READ

# What the tokenizer of a GGUF may take to build, and more with the bytes of its settings.
_SECONDS = 60.0
_MEMORY = 2 << 30
_FILE = 4 << 20
# What builds a tokenizer, by llama.cpp's name of its kind.
_WORKER = "tokenizer_worker.py"
_WORKERS = dict.fromkeys(("bert", "t5"), "encoder_worker.py")


def save_tokenizer(
    path: Path, header: GgufHeader, target: Path, unreadable: Callable[[str], CheckpointError]
) -> None:
    """Let a child process work the tokenizer of ``path`` out of tokens, scores and merges, which may take any
    time and memory, and put it whole into ``target``.
    """
    size, kind = header.settings_bytes, str(header.special.get("model"))
    limits = Limits(_SECONDS + 3e-5 * size, _MEMORY + 128 * size, _FILE + 16 * size)

    def refused(why: str) -> RefusedByPolicy:
        return RefusedByPolicy(
            f"the tokenizer of {path} was stopped",
            why=why,
            fix="do not trust this file: take the model from a source that you trust",
        )

    with tempfile.TemporaryDirectory() as scratch:
        empty, saved = Path(scratch, "model"), Path(scratch, "saved")
        empty.mkdir()
        saved.mkdir()
        with (
            third_party_errors_are_typed(unreadable),
            ChildProcess(Path(__file__).with_name(_WORKERS.get(kind, _WORKER)), refused=refused) as child,
        ):
            child.ask({"model": str(empty), "file": str(path.absolute()), "target": str(saved)}, limits)
        # A child that was stopped may have written a part.
        with disk_full_is_typed(target):
            shutil.copytree(saved, target, dirs_exist_ok=True)
    if header.words is not None:
        # transformers cuts as GPT-2 does, whatever the file says.
        file = target / "tokenizer.json"
        file.write_text(
            json.dumps({**read_json(file), "pre_tokenizer": READ[header.words]}, ensure_ascii=False),
            encoding="utf-8",
        )
