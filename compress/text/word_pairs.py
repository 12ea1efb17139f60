"""Word pairs with human similarity ratings, against which embeddings are ranked.

WordSim-353 (Finkelstein et al., "Placing Search in Context", 2001) rates relatedness; SimLex-999 (Hill,
Reichart and Korhonen, arXiv:1408.3456, 2014) rates similarity proper. Both are on a scale from 0 to 10.
"""

from __future__ import annotations

from ...errors import InputError, UnknownName
from .gensim_package import data_file

FILES = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt"}


def pairs(name: str) -> list[tuple[str, str, float]]:
    """``(word, word, rating)`` of the set ``wordsim353`` or ``simlex999``.

    Raises:
        UnknownName: another name.
        MissingDependency: the package that carries the sets is not installed.
        InputError: a line that is not two words and a number.
    """
    if name not in FILES:
        raise UnknownName("word pair set", name, FILES)
    path = data_file(FILES[name])
    rated: list[tuple[str, str, float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            left, right, rating = line.split("\t")
            rated.append((left, right, float(rating)))
        except ValueError:
            raise InputError(f"{path}:{number} is not two words and a rating: {line!r}") from None
    return rated
