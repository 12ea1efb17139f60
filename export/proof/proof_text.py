"""The text that a proof runs on when none is given: plain prose, near what models are trained on."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError

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


def proof_text(file: Path | None) -> str:
    """The passage, or the text of ``file``.

    Raises:
        InputError: the file cannot be read as UTF-8, or is empty.
    """
    if file is None:
        return PASSAGE
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the proof's text {file}", why=str(error)) from None
    if not text.strip():
        raise InputError(f"the proof's text {file} is empty")
    return text
