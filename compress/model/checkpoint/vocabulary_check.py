"""A vocabulary lives in tokenizer, embedding and head, and they must agree before work begins."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....errors import CheckpointError
from ....files.storage import read_json
from ..anatomy import Anatomy
from .policy import CONFIG
from .reader import CheckpointReader

TOKENIZER = "tokenizer.json"
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Early LLaMA conversions write -1 for "no padding token".
NO_PADDING = ("pad_token_id", -1)


def check_vocabulary(reader: CheckpointReader, anatomy: Anatomy) -> None:
    """Check that every token id has a row in the embedding; a padded vocabulary (more rows) is fine."""
    rows = anatomy.vocab_size
    if anatomy.patches is not None:  # a tokenizer beside it is of another model
        return
    companions = reader.companions()
    if TOKENIZER in companions:
        path = reader.file(TOKENIZER)
        largest, token = max(_tokens(read_json(path), path), default=(-1, ""))
        if largest >= rows:
            raise CheckpointError(
                f"{path} gives token {token!r} the id {largest}, the embedding has {rows} rows",
                why="they are from different models, or tokens were added without resizing the embedding",
                fix="take the tokenizer of these weights, or resize_token_embeddings and save again",
            )
    _check_special(reader.config, reader.path / CONFIG, rows)
    if "generation_config.json" in companions:
        path = reader.file("generation_config.json")
        _check_special(read_json(path), path, rows)
    for copy in anatomy.copies():
        if copy in reader.shapes:
            _check_tied(reader, f"{anatomy.embedding}.weight", copy)


def _tokens(content: Any, path: Path) -> Iterator[tuple[int, str]]:
    """``(id, token)`` of the vocabulary (a table, or Unigram's list in the order of ids) and the added."""
    model = content.get("model") if isinstance(content, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):
        yield from ((index, str(item)) for index, item in enumerate(vocabulary))
    elif isinstance(vocabulary, dict):
        yield from ((_id(index, path), token) for token, index in vocabulary.items())
    else:
        raise CheckpointError(f"{path} has no vocabulary", fix="take tokenizer.json from the publisher")
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(item, dict) for item in added):
        raise CheckpointError(f"{path}: added_tokens must be a list of tables")
    for item in added:
        yield _id(item.get("id"), path), str(item.get("content"))


def _id(value: object, path: Path) -> int:
    if type(value) is not int or value < 0:
        raise CheckpointError(f"{path}: a token has the id {value!r}")
    return value


def _check_special(settings: Any, path: Path, rows: int) -> None:
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} is not a JSON object", fix="take the file from the publisher")
    for key in SPECIAL_IDS:
        value = settings.get(key)
        for item in value if isinstance(value, list) else [value]:
            if item is None or (key, item) == NO_PADDING:
                continue
            if type(item) is not int or not 0 <= item < rows:
                raise CheckpointError(
                    f"{path} sets {key} to {item!r}, the embedding has {rows} rows",
                    fix=f"correct {key} in a copy of the file",
                )


def _check_tied(reader: CheckpointReader, embedding: str, head: str) -> None:
    if not reader.same(embedding, head):
        raise CheckpointError(
            f"{head} differs from {embedding}, though config.json says that they are tied",
            fix="if the head was trained by itself, set tie_word_embeddings to false in config.json",
        )
