"""Windows of tokens: one stream of text cut into equal pieces, for calibration and for perplexity alike.

Documents are joined by a blank line before they are tokenised, which every tokenizer has seen in training,
and windows are cut from the stream without overlap or padding. A model whose tokenizer begins each text with
a BOS token (Gemma, Llama) gets it in front of every window, within its length; SmolLM2 has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...runtime.text.tokenizer import Tokenizer

Ids = NDArray[np.int64]

SEPARATOR = "\n\n"
_PIECE = 1 << 20


def starts_with_bos(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer puts its BOS token in front of a text."""
    bare, full = tokenizer.encode("a", special=False), tokenizer.encode("a", special=True)
    return tokenizer.bos_id is not None and full[:1] == [tokenizer.bos_id] and full != bare


def token_stream(
    tokenizer: Tokenizer, texts: Sequence[str], *, separator: str = SEPARATOR, limit: int | None = None
) -> Ids:
    """Ids ``[tokens]`` of all texts, without tokens that the tokenizer adds; at most ``limit`` of them.

    Text is given to the tokenizer in pieces of about a million characters, and no more of it than ``limit``
    needs.
    """
    parts: list[Ids] = []
    count = 0
    for piece in _pieces(texts, separator, _PIECE if limit is None else min(_PIECE, 8 * limit)):
        parts.append(np.asarray(tokenizer.encode(piece, special=False), dtype=np.int64))
        count += len(parts[-1])
        if limit is not None and count >= limit:
            break
    return np.concatenate(parts)[:limit] if parts else np.empty(0, np.int64)


def _pieces(texts: Sequence[str], separator: str, size: int) -> Iterator[str]:
    pending, length = "", 0
    held: list[str] = []
    for text in texts:
        held.append(text)
        length += len(text)
        if length >= size:
            yield pending + separator.join(held)
            # A separator opens the next piece, so that it is tokenised with what follows it.
            pending, length, held = separator, 0, []
    if held:
        yield pending + separator.join(held)


def windows(stream: Ids, length: int, *, bos: int | None = None) -> Ids:
    """``[count, length]``: consecutive windows of the stream, each with ``bos`` in front when it is given."""
    taken = length if bos is None else length - 1
    count = len(stream) // taken
    cut = stream[: count * taken].reshape(count, taken)
    if bos is None:
        return cut
    return np.concatenate([np.full((count, 1), bos, dtype=np.int64), cut], axis=1)
