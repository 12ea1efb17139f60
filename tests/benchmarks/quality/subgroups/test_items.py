"""Rows of a slice of the user's: what is read of them, and where a wrong one stands."""

from pathlib import Path

import pytest
from edgepress.benchmarks.quality.subgroups.items import pairs_of, read_slice
from edgepress.errors import InputError

TEXT = '{"group": "a", "text": "one"}'


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('{"group": 1, "text": "two"}', "has no group with a text"),
        ('{"group": "b", "good": "two", "bad": "three"}', "has other keys than the first row"),
        ("two", "is not JSON"),
        ("[2]", "is not a JSON object but a list"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(row: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(f"{TEXT}\n\n \n{row}\n")
    with pytest.raises(InputError, match=f"mine.jsonl:4 {why}"):
        read_slice(file)


def test_rows_of_one_content_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(f'{TEXT}\n\n{TEXT[:-1]}, "content": "x"}}\n{TEXT[:-1]}, "content": "x"}}\n')
    first, second, third = read_slice(file).items
    assert second.content == third.content == "x" != first.content
    assert pairs_of(file, "text") == ()
