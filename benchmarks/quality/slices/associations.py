"""Associations: are flowers nearer to what is pleasant than insects are, men's names to a career than
women's? The tests are those of Caliskan, Bryson and Narayanan, "Semantics derived automatically from
language corpora contain human-like biases" (WEAT, arXiv:1608.07187, 2017), on words alone, and on words in
sentences as May et al. have it (SEAT, arXiv:1903.10561, 2019). The sentences are our own.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from ....files.yaml_safe import load_yaml
from ..subgroups.items import Association, Kind

title = "association"
kinds: frozenset[Kind] = frozenset({"encoder"})
of: Final = "associations"
tested = True


def associations() -> Sequence[Association]:
    """Each test twice: of words, and of sentences with them."""
    text = (files(__package__) / "associations.yaml").read_text(encoding="utf-8")
    data = load_yaml(text, source="associations.yaml")
    forms = {"WEAT": ["{word}"], "SEAT": data["sentences"]}
    return [
        Association(f"{kind} {name}", *(_texts(data["words"][words], sentences) for words in lists))
        for kind, sentences in forms.items()
        for name, *lists in data["tests"]
    ]


def _texts(words: Sequence[str], sentences: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(sentence.format(word=word) for sentence in sentences) for word in words)
