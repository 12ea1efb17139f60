"""The tokenizers library behind six questions, in this process or in a child (``worker.py``).

It imports nothing of edgepress. Truncation and padding that were saved inside ``tokenizer.json`` are off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import tokenizers

# Characters of one token; real ones have up to a few hundred (runs of spaces or dashes).
LONGEST_TOKEN = 1024
_THREADS = 4
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class LibraryTokenizer:
    """A tokenizer of the library; it raises what the library raises."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        backend.no_truncation()
        backend.no_padding()

    @classmethod
    def read(cls, file: str) -> LibraryTokenizer:
        """That of a ``tokenizer.json``, whatever it holds."""
        return cls(tokenizers.Tokenizer.from_file(file))

    @classmethod
    def assemble(cls, head: dict[str, Any], model: bytes) -> LibraryTokenizer:
        """That of the parts of a ``tokenizer.json``: what stands before the model, and the model's own JSON.

        The library takes nothing else from the file: a second ``normalizer`` behind the model is an error.
        """
        stub = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
        plain = {**head, "truncation": None, "padding": None, "added_tokens": [], "model": stub}
        backend = tokenizers.Tokenizer.from_str(json.dumps(plain))
        # The state says of which kind it is; an empty model of this kind costs least, that of BPE 5 ms.
        filled = tokenizers.models.WordLevel()
        filled.__setstate__(model)
        backend.model = filled
        for special, group in groupby(head.get("added_tokens", []), key=lambda token: token["special"]):
            added = [
                # The library prints the name of an option that it does not know.
                tokenizers.AddedToken(token["content"], **{flag: token[flag] for flag in _FLAGS})
                for token in group
            ]
            (backend.add_special_tokens if special else backend.add_tokens)(added)
        return cls(backend)

    @property
    def model(self) -> Any:
        """The library's model, with its options as attributes."""
        return self._backend.model

    def vocabulary(self) -> dict[str, int]:
        """Every token with its id."""
        found: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        return found

    def id_of(self, token: str) -> int | None:
        """The id of ``token``, or None."""
        found = self._backend.token_to_id(token)
        return found if isinstance(found, int) else None

    def encode(self, texts: Sequence[str], special: bool, max_length: int | None) -> list[list[int]]:
        """Ids of each text; ``special`` adds what the model expects around it, within ``max_length``."""
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        around = self._backend.num_special_tokens_to_add(False) if special else 0
        room = None if max_length is None else max(max_length - around, 0)
        return [self._finished(encoding, room, special) for encoding in encodings]

    def encode_pairs(self, pairs: Sequence[Sequence[str]], max_length: int | None) -> list[list[list[int]]]:
        """Ids and token types of each pair of texts, with what the model expects around them; and where in
        the second text each token begins and ends, −1 outside of it. Of the longer text more is cut.
        """
        firsts, seconds = (
            self._backend.encode_batch([pair[part] for pair in pairs], add_special_tokens=False)
            for part in range(2)
        )
        around = self._backend.num_special_tokens_to_add(True)
        found = []
        for first, second in zip(firsts, seconds, strict=True):
            if max_length is not None:
                room = max(max_length - around, 0)
                kept = min(len(first.ids), max(room // 2, room - len(second.ids)))
                first.truncate(kept)
                second.truncate(room - kept)
            whole = self._backend.post_process(first, second, True)
            places = [
                place if part == 1 else (-1, -1)
                for place, part in zip(whole.offsets, whole.sequence_ids, strict=True)
            ]
            starts, ends = ([place[end] for place in places] for end in range(2))
            found.append([list(whole.ids), list(whole.type_ids), starts, ends])
        return found

    def encode_words(self, texts: Sequence[str], max_length: int | None) -> list[list[list[int]]]:
        """Of each text the ids, with what the model expects around it, and for each the word that it is of,
        −1 outside of the text, and the characters where the token begins and ends.
        """
        around = self._backend.num_special_tokens_to_add(False)
        room = None if max_length is None else max(max_length - around, 0)
        found = []
        for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False):
            if room is not None:
                encoding.truncate(room)
            whole = self._backend.post_process(encoding, None, True)
            words = [-1 if word is None else word for word in whole.word_ids]
            starts, ends = ([place[part] for place in whole.offsets] for part in range(2))
            found.append([list(whole.ids), words, starts, ends])
        return found

    def _finished(self, encoding: Any, room: int | None, special: bool) -> list[int]:
        if room is not None:
            encoding.truncate(room)
        if special:
            encoding = self._backend.post_process(encoding, None, True)
        return list(encoding.ids)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Text of ``ids``, unknown ones skipped."""
        if any(len(self._backend.id_to_token(one) or "") > LONGEST_TOKEN for one in ids):
            raise ValueError(f"a token has more than {LONGEST_TOKEN} characters")
        return str(self._backend.decode(list(ids), skip_special_tokens=skip_special))


@lru_cache(maxsize=1)
def _opened(file: str) -> LibraryTokenizer:
    # Threads cost address space, which is limited here. The library reads this at its first batch.
    os.environ.setdefault("RAYON_NUM_THREADS", str(min(_THREADS, os.cpu_count() or 1)))
    return LibraryTokenizer.read(file)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The reply to one question of ``tokenizer_process.py``: the method and its arguments."""
    tokenizer = _opened(asked["file"])
    methods: dict[str, Callable[..., Any]] = {
        "vocabulary": tokenizer.vocabulary,
        "id_of": tokenizer.id_of,
        "encode": tokenizer.encode,
        "encode_pairs": tokenizer.encode_pairs,
        "encode_words": tokenizer.encode_words,
        "decode": tokenizer.decode,
    }
    return {"found": methods[asked["method"]](*asked["arguments"])}
