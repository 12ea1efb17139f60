"""Slices end to end on fake models: planted harm is named, equal models raise no alarm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edgepress.benchmarks.quality.subgroups.items import GroupText
from edgepress.benchmarks.quality.subgroups.measure_slices import (
    Given,
    chosen_slices,
    measure_slices,
    most_flips,
)
from edgepress.benchmarks.quality.subgroups.slice_table import worst
from edgepress.errors import InputError, UnknownName

VOCAB = 1280
NOTHING = Given(None, (), 0)


class Characters:
    """Ids are code points; all above :data:`VOCAB` share the last."""

    bos_id = None

    def encode(self, text: str, special: bool = True) -> list[int]:
        return [min(ord(sign), VOCAB - 1) for sign in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


class Decoder:
    """Logits are a row of a table by the token before; ``noise`` is added to the rows of ``codes``."""

    kind, labels, max_length = "decoder", (), 512

    def __init__(self, noise: float = 0.0, codes: range = range(VOCAB), seed: int = 1) -> None:
        self.tokenizer: Any = Characters()
        table = np.random.default_rng(0).normal(scale=3, size=(VOCAB, VOCAB))
        rows = np.array(codes)
        table[rows] += (
            np.random.default_rng(seed).normal(scale=noise, size=(len(rows), VOCAB)) if noise else 0
        )
        self.table = table.astype(np.float32)

    def logits(self, ids: np.ndarray) -> np.ndarray:
        return self.table[ids]


class Encoder:
    """An embedding of each text by its signs; ``noise`` is added where ``hurt`` is in the text."""

    kind, labels, max_length = "encoder", (), 512

    def __init__(self, noise: float = 0.0, hurt: str = "") -> None:
        self.noise, self.hurt = noise, hurt

    def embeddings(self, texts: list[str]) -> np.ndarray:
        rows = []
        for number, text in enumerate(texts):
            row = np.bincount([ord(sign) % 64 for sign in text], minlength=64).astype(np.float32)
            extra = np.random.default_rng(number).normal(size=64) * self.noise * np.linalg.norm(row) / 8
            rows.append(row + (extra if self.hurt in text else 0.1 * extra))
        return np.stack(rows)


def measured(subject: Any, original: Any, *names: str, given: Given = NOTHING) -> dict[str, Any]:
    return measure_slices(subject, original, names, given)


def test_noise_on_a_script_is_named_as_the_worst_language() -> None:
    greek = range(0x370, 0x400)
    report = measured(Decoder(0.5, greek), Decoder(), "languages")
    assert report["worst"]["group"].startswith("Greek")
    assert "Greek" in worst(report)


def test_a_model_and_itself_raise_no_alarm() -> None:
    model = Decoder()
    report = measured(model, model, "languages", "syntax", "people", "professions")
    assert report["worst"] is None
    assert report["tests"] == 53 + 21 + 11 + 35
    assert "no group is harmed more" in worst(report)
    assert most_flips(report) is not None and most_flips(report)[1] == 0.0


def test_rounding_to_bfloat16_raises_no_alarm() -> None:
    original, rounded = Decoder(), Decoder()
    bits = rounded.table.view(np.uint32)
    rounded.table = ((bits + 0x8000) & np.uint32(0xFFFF0000)).view(np.float32)
    assert measured(rounded, original, "languages", "professions")["worst"] is None


def test_harm_that_is_the_same_for_all_is_seldom_an_alarm() -> None:
    """At the level of five per cent, of twenty seeds one may raise it; three are a wrong test."""
    original = Decoder()
    alarms = [
        measured(Decoder(0.3, seed=seed), original, "positions", given=windows(seed)) for seed in range(20)
    ]
    assert sum(report["worst"] is not None for report in alarms) <= 2


def windows(seed: int) -> Given:
    return Given(np.random.default_rng(seed).integers(97, 123, size=(12, 300)), (), seed)


def test_bands_of_tokens_add_up_to_the_whole_text() -> None:
    given = windows(0)
    report = measured(Decoder(0.5), Decoder(), "positions", "confidence", "entropy", given=given)
    for one in report["slices"]:
        counted = [group for group in one["groups"] if one["name"] == "positions"]
        assert [group["group"] for group in counted] in (
            ["below 16", "16 to 63", "64 to 255", "256 to 1023"],
            [],
        )
    untested = [one for one in report["slices"] if one["name"] != "positions"]
    assert all(group["p"] is None and not group["alarm"] for one in untested for group in one["groups"])


def test_the_users_groups() -> None:
    rows = [
        GroupText(group, f"{group} text number {number} of some length", str(number))
        for number in range(40)
        for group in ("plain", "harmed")
    ]
    report = measured(Encoder(0.5, "harmed"), Encoder(), "tasks", given=Given(None, rows, 0))
    assert report["worst"]["group"] == "harmed"
    (one,) = report["slices"]
    assert one["unit"] == "distance" and one["items"] == 80


def test_a_slice_that_does_not_suit_the_model_refuses_by_name_and_is_told_among_all() -> None:
    encoder = Encoder()
    with pytest.raises(InputError, match="not for a model of kind 'encoder'"):
        measured(encoder, encoder, "syntax")
    report = measured(encoder, encoder, "all")
    assert {one["name"] for one in report["slices"] if "why" in one} >= {
        "syntax",
        "people",
        "positions",
        "tasks",
    }
    assert [one["name"] for one in report["slices"] if "groups" in one] == ["languages"]


def test_an_unknown_slice_names_the_choices() -> None:
    with pytest.raises(UnknownName, match="languages"):
        chosen_slices(["langages"])
