"""The text that a proof runs on and its tokens: rows of one length for decoders, sentences for encoders.

Without a text of the user it is plain prose, near what models are trained on.
"""

import re
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compress.text.token_batch import starts_with_bos, windows
from ...errors import InputError
from ...files.storage import read_text
from ...runtime.text.tokenizer import Tokenizer

PASSAGE = """\
The lighthouse stood at the end of a long stone pier, and every evening before dark the keeper walked out to
it with a lamp in one hand and a book in the other. He had read most of the books in the village twice. In
winter the waves broke over the pier, and he had to wait between them and run. People asked him why he did
not move to the town, where the winters were mild and the shops were open until nine. He said that somebody
had to watch the light, and that he liked the quiet.

Water boils at a lower temperature on a mountain than it does at the sea, because there is less air above it
to press on its surface. A cook who lives high up must wait longer for rice and beans. At three thousand
metres water boils at about ninety degrees, and an egg that takes four minutes in a harbour takes six or
seven there. The same effect is used in factories to dry milk without burning it: the pressure is lowered
with a pump, and the water leaves the milk while it is barely warm.

The committee met on Tuesday to discuss the new bridge. Three companies had sent their plans. The first was
cheap but would close the river for two summers; the second was made of steel and would have to be painted
every ten years; the third, of concrete, cost more than the town had saved. After four hours the members
agreed to ask the engineers for one more report, and to meet again in the spring. Nobody was pleased, but
nobody had been overruled, and in that town this was counted as a success.

When a sorting program is given a list that is already in order, a careless method may need more time than
it does for a list in no order at all. A good method looks at a few elements first, chooses one from the
middle, and divides the rest into those which are smaller and those which are larger. It then does the same
to each part. With a million names this takes about twenty rounds, and each name is looked at once in every
round.

Her grandmother had planted the orchard before the war. There were apples of seven kinds, some of which have
no name in any catalogue, and two pear trees that leaned together like old friends. In September the whole
family came to pick, and the children were allowed to eat as many as they wanted, which was always more than
was good for them. What could not be eaten was pressed, and what could not be pressed was given to the
neighbour's pigs.
"""
Ids = NDArray[np.int64]
_TOKENIZER = "tokenizer.json"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


_WAY_OUT = "give a UTF-8 text file; without one a built-in passage is taken"


def proof_text(file: Path | None) -> str:
    """The passage, or the text of ``file``."""
    if file is None:
        return PASSAGE
    try:
        text = read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the proof's text {file}", why=str(error), fix=_WAY_OUT) from None
    if not text.strip():
        raise InputError(f"the proof's text {file} is empty", fix=_WAY_OUT)
    return text


def token_rows(checkpoint: Path, text: Path | None, count: int, length: int, vocab_size: int) -> Ids:
    """``[count, length]`` consecutive tokens of the text, repeated if it is short, each row behind BOS where
    the tokenizer puts one in front of a text; seeded random ids when there is no ``tokenizer.json``.
    """
    if not (checkpoint / _TOKENIZER).is_file():
        return np.random.default_rng(0).integers(0, vocab_size, (count, length), dtype=np.int64)
    tokenizer = Tokenizer.open(checkpoint)
    ids = np.array(tokenizer.encode(proof_text(text), special=False), dtype=np.int64)
    if length == 1 or not starts_with_bos(tokenizer):
        return np.resize(ids, (count, length))
    return windows(np.resize(ids, count * (length - 1)), length, bos=tokenizer.bos_id)


def token_sentences(
    checkpoint: Path,
    text: Path | None,
    count: int,
    longest: int,
    vocab_size: int,
    in_front: Sequence[str] = ("",),
) -> list[Ids]:
    """Ids of up to ``count`` sentences with their special tokens, each of at most ``longest`` tokens, behind
    one text after the other of those ``in_front``.
    """
    if not (checkpoint / _TOKENIZER).is_file():
        generator = np.random.default_rng(0)
        lengths = generator.integers(min(4, longest), longest + 1, count)
        return [generator.integers(0, vocab_size, int(length), dtype=np.int64) for length in lengths]
    pieces = [piece for piece in _SENTENCE_END.split(proof_text(text)) if piece.strip()][:count]
    pieces = [before + piece for before, piece in zip(cycle(in_front), pieces, strict=False)]
    encoded = Tokenizer.open(checkpoint).encode_batch(pieces, max_length=longest)
    return [np.array(ids, dtype=np.int64) for ids in encoded if ids]


def padded(batch: list[Ids], pad: int, *, left: bool = False) -> dict[str, Any]:
    """``input_ids`` and ``attention_mask`` of a batch, padded on the right or the ``left``."""
    width = max(map(len, batch))
    ids = np.full((len(batch), width), pad, np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(batch):
        start = width - len(row) if left else 0
        ids[index, start : start + len(row)] = row
        mask[index, start : start + len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
