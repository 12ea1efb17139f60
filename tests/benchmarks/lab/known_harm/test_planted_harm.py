"""Planted noise stays where it is planted, and seeds draw halves of what groups share."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.benchmarks.lab.known_harm import planted_harm
from edgepress.benchmarks.lab.known_harm.false_alarms import alarms, in_seed, rounded
from edgepress.benchmarks.lab.known_harm.planted_harm import CASES, EMBEDDING, kinds_of_rows, row
from edgepress.benchmarks.quality.subgroups.group_harm import Items


class Letters:
    """An id for each of a few signs."""

    signs = ("a", "α", " β", "γ1", "ἀ", " nurse", "\n", "")

    def decode(self, ids: list[int]) -> str:
        return self.signs[ids[0] % len(self.signs)]

    def encode(self, text: str, special: bool) -> list[int]:
        return [self.signs.index(text)]


@pytest.mark.parametrize(("case", "changed"), [("greek", [1, 2, 4]), ("nurse", [5])])
def test_noise_is_on_the_rows_of_the_group(
    case: str, changed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planted_harm, "TOKENS", len(Letters.signs))
    weights = {EMBEDDING: torch.arange(24.0).reshape(8, 3)}
    before = weights[EMBEDDING].clone()
    CASES[case].plant(weights, Letters())  # type: ignore[arg-type]
    rows = (weights[EMBEDDING] != before).any(dim=1).nonzero().flatten().tolist()
    assert rows == changed


def test_noise_is_on_the_output_of_one_head() -> None:
    name = f"model.layers.{planted_harm.BLOCK}.self_attn.o_proj.weight"
    weights = {name: torch.arange(18.0 * 18).reshape(18, 18)}
    before = weights[name].clone()
    CASES["head"].plant(weights, Letters())  # type: ignore[arg-type]
    columns = (weights[name] != before).any(dim=0).nonzero().flatten().tolist()
    assert columns == [12, 13]


def test_as_many_rows_of_each_kind() -> None:
    rows = kinds_of_rows()
    assert set(Counter(one.group for one in rows).values()) == {planted_harm.ROWS}
    said = next(one.text.split() for one in rows if one.group == "repeats itself")
    assert said[: len(said) // 2] == said[len(said) // 2 :]
    assert rows == kinds_of_rows()


def test_what_was_named_is_held_against_what_was_planted() -> None:
    def line(worst: str | None) -> dict[str, Any]:
        named = [("nurse", 0.4, 0.001), ("soldier", 0.2, 0.4)]
        groups = [{"group": name, "harm": harm, "others": 0.02, "p": p} for name, harm, p in named]
        one = {"name": "professions", "unit": "changed", "items": 32, "groups": groups}
        return {"slices": [one], "worst": worst and {"group": worst, "slice": "professions"}}

    assert row(CASES["nurse"], line("nurse"))[1:4] == [
        "nurse (professions)",
        "yes",
        "40.0% answers that changed",
    ]
    assert row(CASES["nurse"], line(None))[1:3] == ["nothing", "no"]


def test_a_seed_is_a_half_of_the_contents_with_all_their_groups() -> None:
    groups, contents = ["a", "b"] * 10, [str(place // 2) for place in range(20)]
    sums = np.stack([np.arange(20.0), np.ones(20)], axis=1)
    items = Items("nats/byte", groups, contents, np.arange(20.0), np.ones(20), {"kl_per_token": sums})
    half, other = in_seed(items, 0), in_seed(items, 1)
    assert Counter(half.groups) == {"a": 5, "b": 5} and len(set(half.contents)) == 5
    assert half.harm.tolist() == half.extras["kl_per_token"][:, 0].tolist()
    assert set(half.contents) != set(other.contents)


def test_seeds_without_harm_raise_no_alarm_and_one_group_in_flames_does() -> None:
    groups, contents = ["a", "b", "c"] * 20, [str(place // 3) for place in range(60)]
    harm = np.random.default_rng(0).lognormal(-3, 0.2, 60)
    even = Items("nats/byte", groups, contents, harm, np.ones(60))
    burning = np.where(np.array(groups) == "b", 9.0, 1.0) * harm
    assert not any(one["worst"] for one in alarms({"languages": even}, 5))
    found = alarms({"languages": Items("nats/byte", groups, contents, burning, np.ones(60))}, 5)
    assert [one["worst"]["group"] for one in found] == ["b"] * 5


def test_weights_are_rounded_to_bfloat16_and_stay_what_they_were() -> None:
    weights = {"a": torch.tensor([1.0, 1 / 3])}
    rounded(weights, None)
    assert weights["a"].dtype == torch.float32
    assert weights["a"].tolist() == torch.tensor([1.0, 1 / 3]).bfloat16().tolist()
