"""Which token ids two models have in common: what one can learn from the other's next-token distribution.

Families pad the embedding of each size differently, so that logits are not equally long although the
tokenizer is the same; and a vocabulary may go on where the other ends. Anything else would compare the chance
of one word with that of another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import TrainingError
from ...storage import read_json

_SPLITTING = ("normalizer", "pre_tokenizer")


def shared_ids(student: Path, teacher: Path) -> int:
    """How many ids, from 0 on, stand for the same tokens in both models, whose tokenizers split text alike.

    Raises:
        TrainingError: the tokenizers differ in more than what is added at the end.
    """
    mine, theirs = (read_json(path / "tokenizer.json") for path in (student, teacher))
    for part in _SPLITTING:
        if mine.get(part) != theirs.get(part):
            raise _other(f"their {part} is not the same")
    if mine["model"].get("merges") != theirs["model"].get("merges"):
        raise _other("their merges are not the same")
    tokens = [_by_id(tokenizer) for tokenizer in (mine, theirs)]
    shared = min(map(len, tokens))
    for index in range(shared):
        one, other = (names.get(index) for names in tokens)
        if one != other:
            raise _other(f"id {index} is {one!r} in one and {other!r} in the other")
    return shared


def _other(why: str) -> TrainingError:
    return TrainingError(
        "student and teacher have different vocabularies",
        why=why,
        fix="give the student the teacher's tokenizer.json, or compare states instead of logits",
    )


def _by_id(tokenizer: dict[str, Any]) -> dict[int, str]:
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pairs in the order of ids
        found = {index: str(entry[0]) for index, entry in enumerate(vocabulary)}
    else:
        found = {int(index): str(token) for token, index in vocabulary.items()}
    return found | {int(entry["id"]): str(entry["content"]) for entry in tokenizer.get("added_tokens", [])}
