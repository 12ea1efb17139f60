"""What stands beside an encoder that is read from a GGUF file: how its states become one vector, as
sentence-transformers says it, and the tokens around a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .....files.storage import read_json, write_json
from ...pooling import STAGES

_POOLED = {1: "mean_tokens", 2: "cls_token", 3: "lasttoken"}
_MODULES = "sentence_transformers.models"
_POOLING = "1_Pooling"
# Those that put a token before each text and one behind it in any case.
_AROUND = ("bert",)


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
