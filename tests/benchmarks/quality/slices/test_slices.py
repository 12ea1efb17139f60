"""What the packaged slices hold: as many items as they say, the same for a seed, and no words twice."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from edgepress.benchmarks.quality.slices import languages, people, positions, professions, rare_words, syntax
from edgepress.benchmarks.quality.subgroups.items import protected_text, with_calibration
from edgepress.benchmarks.quality.token_damage import TokenDamage
from edgepress.errors import InputError


def test_the_declaration_in_at_least_forty_languages() -> None:
    texts = languages.texts(0)
    counts = Counter(text.group for text in texts)
    assert len(counts) >= 40 and set(counts.values()) == {20}
    assert len({text.content for text in texts}) == 20
    assert all(text.text.strip() for text in texts)


def test_what_calibration_may_read_is_not_measured() -> None:
    measured, calibration = languages.texts(0), languages.calibration()
    assert {text.group for text in measured} == {text.group for text in calibration}
    assert not {text.content for text in measured} & {text.content for text in calibration}


@pytest.mark.parametrize("name", with_calibration())
def test_a_slice_is_protected_by_its_name(name: str) -> None:
    found = protected_text(f"slice={name}")
    assert found.name == name and len(found.texts) > 10
    assert found == protected_text(name)


def test_a_file_is_protected_by_its_path(tmp_path: Path) -> None:
    texts, pairs = tmp_path / "own.jsonl", tmp_path / "pairs.jsonl"
    texts.write_text('{"group": "a", "text": "one"}\n{"group": "b", "text": "two"}\n', encoding="utf-8")
    pairs.write_text('{"group": "a", "good": "it is", "bad": "it are"}\n', encoding="utf-8")
    assert protected_text(f"slice={texts}").texts == (("a", ("one",)), ("b", ("two",)))
    assert protected_text(f"slice={pairs}").texts == (("a", ("it is", "it are")),)
    assert protected_text(f"slice={pairs}", "good").texts == (("a", ("it is",)),)
    pairs.write_text('{"group": "a", "good": "it is", "bad": "it are"}\n{"group": "a"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=":2 has no group with a text or a pair"):
        protected_text(f"slice={pairs}")


def test_twenty_phenomena_of_fifty_different_pairs() -> None:
    choices = syntax.choices(0)
    counts = Counter(choice.group for choice in choices)
    assert len(counts) >= 20 and set(counts.values()) == {syntax.PAIRS}
    pairs = Counter((choice.group, choice.first, choice.second) for choice in choices)
    assert set(pairs.values()) == {1}
    assert all(choice.first != choice.second and choice.right for choice in choices)
    assert not any("{" in text for choice in choices for text in (choice.first, choice.second))
    assert choices == syntax.choices(0)


def test_sentences_about_people_differ_in_who_they_are_about() -> None:
    for choice in [*people.choices(0), *professions.choices(0)]:
        first, second = choice.first.split(), choice.second.split()
        assert len(first) == len(second)
        assert sum(one != other for one, other in zip(first, second, strict=True)) == 1


def damage(ids: list[int]) -> TokenDamage:
    zeros = np.zeros(len(ids) - 1)
    return TokenDamage(np.array(ids), zeros, zeros > 0, zeros, zeros, zeros, zeros)


def test_positions_count_from_the_first_predicted_token() -> None:
    bands = positions.bands(damage(list(range(70))), None)  # type: ignore[arg-type]
    assert bands[:15] == ["below 16"] * 15 and bands[15] == "16 to 63" and bands[63] == "64 to 255"
    assert len(bands) == 69


class Words:
    """Ids name pieces of words."""

    pieces = ("The", " man", " saw", " an", " aard", "vark", ".", " 12", "\n", " xqzvk")

    def decode(self, ids: list[int]) -> str:
        return "".join(self.pieces[index] for index in ids)


def test_pieces_of_a_word_share_its_frequency() -> None:
    pytest.importorskip("wordfreq")
    found = rare_words.bands(damage(list(range(10))), Words())  # type: ignore[arg-type]
    man, saw, an, aard, vark, stop, number, line, unknown = found
    assert an == rare_words.MOST
    assert aard == vark not in {man, an}
    assert saw in {name for _, name in rare_words.ENDS} | {rare_words.MOST}
    assert stop == number == line == rare_words.NO_WORD
    assert unknown == rare_words.ENDS[0][1]
