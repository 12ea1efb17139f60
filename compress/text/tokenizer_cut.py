"""A ``tokenizer.json`` without the tokens that a text never needs.

What is cut is chosen so that any text can still be split, and a text whose tokens all stay is split as
before: the alphabet, bytes and special tokens stay, and for BPE every token that another one is merged from.
Whole words are not split (``WordLevel``): those that are cut become the unknown token.
What is left is renumbered, in the old order.

Token ids in a model's settings: which it cannot do without, and what they become in another vocabulary.

``config.json``, ``generation_config.json`` and ``tokenizer_config.json`` name tokens by id: what an answer
begins and ends with, what is never written, and of a Whisper its languages and tasks.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import CheckpointError

Content = dict[str, Any]
Renumber = Mapping[int, int]
_ENDS_ONE = "_token_id"  # one id, or several
_ENDS_NEVER = "suppress_tokens"  # a list of ids that are never written
_NAMED = ("lang_to_id", "task_to_id")  # tables from names to ids
_PLACES = "forced_decoder_ids"  # pairs of a place in an answer and its id, or null
New = Mapping[int, int]


@dataclass(frozen=True)
class Cut:
    """A cut tokenizer: its ``content``, and of each of its ids the ``kept`` old one, ascending."""

    content: Content
    kept: tuple[int, ...]


def cut_tokenizer(
    content: Content, wanted: Iterable[int], always: Iterable[int] = (), size: int | None = None
) -> Cut:
    """Leave the ids ``wanted``, the most wanted first, and those that no text can do without.

    Args:
        content: a parsed ``tokenizer.json``, which is not changed.
        always: ids that stay whatever the size.
        size: at most so many tokens; None keeps all that are wanted.
    """
    model = content.get("model") or {}
    kind = str(model.get("type") or ("BPE" if "merges" in model else "WordPiece"))
    if kind not in _MODELS:
        raise CheckpointError(f"a {kind} tokenizer cannot be cut", fix=f"known: {', '.join(_MODELS)}")
    ids = _ids(model)
    parts_of = _parts(model, ids) if kind == "BPE" else {}
    kept: set[int] = set()
    known = set(ids.values())
    _keep(kept, [*_needed(content, ids), *(token for token in always if token in known)], parts_of, None)
    if size is not None and len(kept) > size:
        raise CheckpointError(
            f"{size} tokens are fewer than the {len(kept)} that no text can do without",
            fix=f"keep at least {len(kept)}",
        )
    _keep(kept, (token for token in wanted if token in known), parts_of, size)
    order = tuple(sorted(kept))
    return Cut(_renumbered(content, _MODELS[kind], {old: new for new, old in enumerate(order)}), order)


def _ids(model: Content) -> dict[str, int]:
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, list):
        return {str(entry[0]): index for index, entry in enumerate(vocabulary)}
    if isinstance(vocabulary, dict):
        return dict(vocabulary)
    raise CheckpointError("tokenizer.json has no vocabulary", fix="take it from the model's publisher")


def _needed(content: Content, ids: Mapping[str, int]) -> Iterator[int]:
    """Special tokens, single characters, and what stands for a byte or for what is unknown."""
    for token in content.get("added_tokens") or []:
        yield int(token["id"])
    model = content["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    unknown = model.get("unk_token")
    if isinstance(model.get("unk_id"), int):
        yield int(model["unk_id"])
    for token, index in ids.items():
        bare = token.removeprefix(prefix) if prefix else token
        bare = bare.removesuffix(model.get("end_of_word_suffix") or "")
        is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        if len(bare) <= 1 or is_byte or token == unknown:
            yield index


def _parts(model: Content, ids: Mapping[str, int]) -> dict[int, set[int]]:
    """The tokens that each token may be merged from."""
    found: dict[int, set[int]] = {}
    for left, right in map(_pair, model.get("merges") or []):
        whole = ids.get(_merged(model, left, right))
        if whole is not None:
            found.setdefault(whole, set()).update(ids[part] for part in (left, right) if part in ids)
    return found


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _merged(model: Content, left: str, right: str) -> str:
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _keep(kept: set[int], wanted: Iterable[int], parts_of: Mapping[int, set[int]], size: int | None) -> None:
    """Add each of ``wanted`` with all that it is made from, as long as there is room for both."""
    for token in wanted:
        family, open_ends = {token}, [token]
        while open_ends:
            fresh = parts_of.get(open_ends.pop(), set()) - family
            family |= fresh
            open_ends += fresh
        if size is None or len(kept | family) <= size:
            kept |= family


def _renumbered(content: Content, cut: Callable[[Content, Renumber], Content], new: Renumber) -> Content:
    changed = {**content, "model": cut(content["model"], new)}
    changed["added_tokens"] = [
        {**token, "id": new[token["id"]]} for token in content.get("added_tokens") or []
    ]
    if content.get("post_processor"):
        changed["post_processor"] = _post_processor(content["post_processor"], new)
    changed["truncation"] = changed["padding"] = None
    return changed


def _post_processor(processor: Any, new: Renumber) -> Any:
    """A post-processor with its ids renumbered: templates and ``[token, id]`` pairs."""
    if processor.get("type") == "Sequence":
        return {**processor, "processors": [_post_processor(one, new) for one in processor["processors"]]}
    changed = dict(processor)
    if isinstance(processor.get("special_tokens"), dict):
        changed["special_tokens"] = {
            name: {**entry, "ids": [new[index] for index in entry["ids"]]}
            for name, entry in processor["special_tokens"].items()
        }
    for key in ("cls", "sep"):
        if isinstance(processor.get(key), list):
            changed[key] = [processor[key][0], new[processor[key][1]]]
    return changed


def _table(model: Content, new: Renumber) -> Content:
    kept = {token: new[index] for token, index in model["vocab"].items() if index in new}
    return {**model, "vocab": dict(sorted(kept.items(), key=lambda entry: entry[1]))}


def _bpe(model: Content, new: Renumber) -> Content:
    changed = _table(model, new)
    tokens: Collection[str] = changed["vocab"].keys()

    def stays(merge: str | Sequence[str]) -> bool:
        left, right = _pair(merge)
        return left in tokens and right in tokens and _merged(model, left, right) in tokens

    return {**changed, "merges": [merge for merge in model.get("merges") or [] if stays(merge)]}


def _unigram(model: Content, new: Renumber) -> Content:
    entries = [entry for index, entry in enumerate(model["vocab"]) if index in new]
    unknown = model.get("unk_id")
    return {**model, "vocab": entries, "unk_id": None if unknown is None else new[unknown]}


_MODELS: dict[str, Callable[[Content, Renumber], Content]] = {
    "BPE": _bpe,
    "WordPiece": _table,
    "WordLevel": _table,
    "Unigram": _unigram,
}


def named_ids(settings: Mapping[str, Any]) -> Iterator[int]:
    """The ids in ``settings`` that the model cannot do without."""
    for key, value in settings.items():
        found: list[Any] = []
        if key.endswith(_ENDS_ONE):
            found = value if isinstance(value, list) else [value]
        elif key in _NAMED and isinstance(value, dict):
            found = [*value.values()]
        elif key == _PLACES and isinstance(value, list):
            found = [pair[-1] for pair in value if isinstance(pair, list) and pair]
        yield from (one for one in found if type(one) is int)


def renumbered(settings: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The entries of ``settings`` that hold ids, in a vocabulary of which only ``kept`` are left, each with
    its place there as its id.

    A value that is no token stays as it is. What is never written is left out where it was cut.
    """
    new = {old: index for index, old in enumerate(kept)}
    changed = {}
    for key, value in settings.items():
        change = _CHANGES.get(key)
        if key.endswith(_ENDS_ONE):
            change = _one_or_several
        elif key.endswith(_ENDS_NEVER):
            change = _never
        if change is not None:
            changed[key] = change(value, new)
    return changed


def _one(value: Any, new: New) -> Any:
    return new.get(value, value) if type(value) is int else value


def _one_or_several(value: Any, new: New) -> Any:
    if isinstance(value, list):
        return [new[one] for one in value if type(one) is int and one in new]
    return _one(value, new)


def _never(value: Any, new: New) -> Any:
    return (_one_or_several(value, new) or None) if isinstance(value, list) else value


def _never_in_a_row(value: Any, new: New) -> Any:
    """Of words of several tokens, those that can still be written."""
    if not isinstance(value, list):
        return value
    words = [_one_or_several(word, new) for word in value if isinstance(word, list)]
    whole = [len(word) for word in value if isinstance(word, list)]
    return [word for word, length in zip(words, whole, strict=True) if word and len(word) == length] or None


def _by_name(value: Any, new: New) -> Any:
    return {name: _one(one, new) for name, one in value.items()} if isinstance(value, dict) else value


def _by_place(value: Any, new: New) -> Any:
    if not isinstance(value, list):
        return value
    return [[*pair[:-1], _one(pair[-1], new)] if isinstance(pair, list) and pair else pair for pair in value]


def _by_id(value: Any, new: New) -> Any:
    if not isinstance(value, dict):
        return value
    numbers = {int(old): token for old, token in value.items() if old.isdecimal()}
    return {str(new[old]): token for old, token in numbers.items() if old in new}


_CHANGES: dict[str, Callable[[Any, New], Any]] = {
    **dict.fromkeys(_NAMED, _by_name),
    _PLACES: _by_place,
    "bad_words_ids": _never_in_a_row,
    "added_tokens_decoder": _by_id,
}
