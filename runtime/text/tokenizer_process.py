"""A tokenizer whose cost nothing bounds but a process: the library in a child with limits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import RefusedByPolicy
from .child_process import ChildProcess, Limits

SECONDS = 10.0
MEMORY_LIMIT = 1 << 30
REPLY_LIMIT = 16 << 20
# Bytes of text in one request; a longer text has one to itself.
_BATCH = 1 << 20


class TokenizerProcess:
    """The methods of :class:`~.tokenizer_worker.LibraryTokenizer`, each answered by a child process.

    Time, memory and the size of a reply grow with the file and the text of a request: 10 s and 1 GiB, and a
    megabyte of text adds a minute and half a gigabyte, one of the file 2 s and 128 MB.
    """

    def __init__(self, file: Path) -> None:
        self._file = str(file.absolute())
        self._size = file.stat().st_size
        self._child = ChildProcess("tokenizer_worker.py", refused=self._refused)

    def _refused(self, why: str) -> RefusedByPolicy:
        return RefusedByPolicy(
            f"the tokenizer {self._file} was stopped",
            why=why,
            fix="do not trust this model's files: take its tokenizer.json from a source that you trust",
        )

    def _ask(self, method: str, *arguments: Any, text: int = 0) -> Any:
        limits = Limits(
            SECONDS + 2e-6 * self._size + 6e-5 * text,
            MEMORY_LIMIT + 128 * self._size + 512 * text,
            REPLY_LIMIT + 4 * self._size + 64 * text,
        )
        asked = {"file": self._file, "method": method, "arguments": arguments}
        return self._child.ask(asked, limits)["found"]

    def vocabulary(self) -> dict[str, int]:
        """Every token with its id."""
        found: dict[str, int] = self._ask("vocabulary")
        return found

    def id_of(self, token: str) -> int | None:
        """The id of ``token``, or None."""
        found: int | None = self._ask("id_of", token)
        return found

    def encode(self, texts: Sequence[str], special: bool, max_length: int | None) -> list[list[int]]:
        """Ids of each text; ``special`` adds what the model expects around it, within ``max_length``."""
        found: list[list[int]] = []
        for some, size in _batches(texts):
            found += self._ask("encode", some, special, max_length, text=size)
        return found

    def encode_pairs(self, pairs: Sequence[Sequence[str]], max_length: int | None) -> list[list[list[int]]]:
        """Ids and token types of each pair of texts, and first and last characters in the second."""
        found: list[list[list[int]]] = []
        start = 0
        for some, size in _batches(["".join(pair) for pair in pairs]):
            found += self._ask("encode_pairs", list(pairs[start : start + len(some)]), max_length, text=size)
            start += len(some)
        return found

    def encode_words(self, texts: Sequence[str], max_length: int | None) -> list[list[list[int]]]:
        """Ids, words, and first and last characters of the tokens of each text."""
        found: list[list[list[int]]] = []
        for some, size in _batches(texts):
            found += self._ask("encode_words", some, max_length, text=size)
        return found

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Text of ``ids``, unknown ones skipped."""
        return str(self._ask("decode", list(ids), skip_special))


def _batches(texts: Sequence[str]) -> Iterator[tuple[list[str], int]]:
    """The texts in order, some at a time with their bytes."""
    some: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if some and size + length > _BATCH:
            yield some, size
            some, size = [], 0
        some.append(text)
        size += length
    if some:
        yield some, size
