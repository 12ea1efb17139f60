"""The tokenizer of a GGUF file, built in a child process under limits and saved as ``tokenizer.json``.

What stands beside an encoder that is read from a GGUF file: how its states become one vector, as
sentence-transformers says it, and the tokens around a text.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .....errors import CheckpointError, RefusedByPolicy
from .....files.disk import disk_full_is_typed
from .....files.storage import read_json, write_json
from .....files.third_party_errors import third_party_errors_are_typed
from .....runtime.text.child_process import ChildProcess, Limits
from ...pooling import STAGES
from ..gguf_header import GgufHeader
from ..gguf_words import READ

# What the tokenizer of a GGUF may take to build, and more with the bytes of its settings.
_SECONDS = 60.0
_MEMORY = 2 << 30
_FILE = 4 << 20
# What builds a tokenizer, by llama.cpp's name of its kind.
_WORKER = "tokenizer_worker.py"
_WORKERS = dict.fromkeys(("bert", "t5"), "encoder_worker.py")
_POOLED = {1: "mean_tokens", 2: "cls_token", 3: "lasttoken"}
_MODULES = "sentence_transformers.models"
_POOLING = "1_Pooling"
# Those that put a token before each text and one behind it in any case.
_AROUND = ("bert",)


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


def save_beside(target: Path, settings: Mapping[str, object], special: Mapping[str, object]) -> None:
    """Write into ``target`` what a file's ``settings`` say of pooling, and add to its tokenizer what those of
    the tokenizer, ``special``, put around a text.
    """
    content = read_json(target / "tokenizer.json")
    write_json(target / "tokenizer.json", content | {"post_processor": _around(content, special)})
    mode = _POOLED.get(settings.get("pooling_type"))  # type: ignore[call-overload]
    if mode is None:
        return
    stages = (("Transformer", ""), ("Pooling", _POOLING))
    described = [
        {"idx": place, "name": str(place), "path": path, "type": f"{_MODULES}.{kind}"}
        for place, (kind, path) in enumerate(stages)
    ]
    write_json(target / STAGES, described)
    (target / _POOLING).mkdir()
    width = settings.get("embedding_length")
    write_json(
        target / _POOLING / "config.json",
        {"word_embedding_dimension": width, f"pooling_mode_{mode}": True},
    )


def _around(content: dict[str, Any], special: Mapping[str, object]) -> dict[str, Any] | None:
    """The step of ``tokenizer.json`` that adds the first and the last token of a text, or of two."""
    names = {token["id"]: token["content"] for token in content.get("added_tokens", [])}
    always = special.get("model") in _AROUND
    first = names.get(special.get("bos_token_id")) if always or special.get("add_bos_token") else None
    end = special.get("seperator_token_id" if always else "eos_token_id")
    last = names.get(end) if always or special.get("add_eos_token") else None
    if first is None and last is None:
        return None
    one = [_token(first, 0), _sequence("A", 0), _token(last, 0)]
    between = [_token(last, 0)] if special.get("add_sep_token") and not always else []
    two = [*one, *between, _sequence("B", int(always)), _token(last, int(always))]
    ids = {name: index for index, name in names.items()}
    return {
        "type": "TemplateProcessing",
        "single": [step for step in one if step],
        "pair": [step for step in two if step],
        "special_tokens": {
            name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (first, last) if name
        },
    }


def _token(name: str | None, kind: int) -> dict[str, Any] | None:
    return None if name is None else {"SpecialToken": {"id": name, "type_id": kind}}


def _sequence(name: str, kind: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": kind}}
