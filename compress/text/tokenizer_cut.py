"""A ``tokenizer.json`` without the tokens that a text never needs.

What is cut is chosen so that any text can still be split, and a text whose tokens all stay is split as
before: the alphabet, bytes and special tokens stay, and for BPE every token that another one is merged from.
Whole words are not split (``WordLevel``): those that are cut become the unknown token.
What is left is renumbered, in the old order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import CheckpointError

Content = dict[str, Any]
Renumber = Mapping[int, int]


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
