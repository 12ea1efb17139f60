"""What is cut, in a line: block by block where they are few, else in numbers, of what there is."""

from pathlib import Path

import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.fit.cuts import possible
from edgepress.fit.cuts.possible import Profile, cuts_of


@pytest.mark.parametrize(
    ("kept", "removed", "said"),
    [
        (((0, "ffn", 64),), (1,), "1 blocks narrower, 1 blocks gone"),
        (((0, "ffn", 64), (1, "heads", 1)), (), "2 blocks narrower"),
        ((), (0, 1), "2 blocks gone"),
    ],
)
def test_many_blocks_are_counted(
    kept: tuple[tuple[int, str, int], ...],
    removed: tuple[int, ...],
    said: str,
    pico_llama: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuts = cuts_of(WeightSource.open(pico_llama))
    found = Profile(kept, removed)
    assert found.line(cuts) == "; ".join(found.lines(cuts))
    monkeypatch.setattr(possible, "_SAID", 1)
    assert found.line(cuts) == said
