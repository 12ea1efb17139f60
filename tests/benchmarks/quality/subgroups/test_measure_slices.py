"""Slices end to end on fake models: planted harm is named, equal models raise no alarm."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.benchmarks.quality.accuracy import score_windows
from edgepress.benchmarks.quality.subgroups.items import GroupText
from edgepress.benchmarks.quality.subgroups.kept_rows import KeptRows
from edgepress.benchmarks.quality.subgroups.measure_slices import (
    chosen_slices,
    measure_slices,
    most_flips,
)
from edgepress.benchmarks.quality.subgroups.slice_run import Given
from edgepress.benchmarks.quality.subgroups.slice_table import render, worst
from edgepress.benchmarks.quality.token_damage import TokenDamage, token_damage
from edgepress.errors import InputError, UnknownName
from rich.console import Console

VOCAB = 1280
NOTHING = Given()


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


def test_where_nothing_changes_a_test_does_not_see_everything() -> None:
    model = Decoder()
    report = measured(model, model, "languages", "professions")
    languages, professions, _ = report["slices"]
    assert all(group["smallest_seen"] is None for group in languages["groups"])
    assert all(0.2 < group["smallest_seen"] < 0.3 for group in professions["groups"])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(report))
    said = console.export_text()
    assert "nothing says what the test would have seen" in said and "would be seen four times in five" in said


def test_rounding_to_bfloat16_raises_no_alarm() -> None:
    original, rounded = Decoder(), Decoder()
    bits = rounded.table.view(np.uint32)
    rounded.table = ((bits + 0x8000) & np.uint32(0xFFFF0000)).view(np.float32)
    assert measured(rounded, original, "languages", "professions")["worst"] is None


def test_harm_that_is_the_same_for_all_is_seldom_an_alarm() -> None:
    """At the level of five per cent, of twenty seeds one may raise it; three are a wrong test."""
    original = Decoder()
    alarms = []
    for seed in range(20):
        subject = Decoder(0.3, seed=seed)
        alarms.append(measured(subject, original, "positions", given=windows(subject, original, seed)))
    assert sum(report["worst"] is not None for report in alarms) <= 2


def windows(subject: Any, original: Any, seed: int) -> Given:
    ids = np.random.default_rng(seed).integers(97, 123, size=(12, 300))
    damage: list[TokenDamage] = []
    score_windows(subject, original, ids, damage=damage)
    return Given(damage, (), seed)


def test_bands_of_tokens_add_up_to_the_whole_text() -> None:
    subject, original = Decoder(0.5), Decoder()
    given = windows(subject, original, 0)
    report = measured(subject, original, "positions", "confidence", "entropy", given=given)
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
    report = measured(Encoder(0.5, "harmed"), Encoder(), "tasks", given=Given(rows=rows))
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
    assert [one["name"] for one in report["slices"] if "groups" in one] == ["associations", "languages"]


def test_a_file_of_the_users_is_a_slice(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {"group": name, "good": f"{name} {number} is", "bad": f"{name} {number} are"}
        for name in "ab"
        for number in range(6)
    ]
    pairs.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    parallel = tmp_path / "parallel.jsonl"
    said = [
        {"group": language, "text": f"{sign * 9} {number}", "content": number}
        for number in range(6)
        for language, sign in (("Greek", "α"), ("English", "a"))
    ]
    parallel.write_text("\n".join(map(json.dumps, said)), encoding="utf-8")
    subject = Decoder(0.5, range(0x370, 0x400))
    report = measured(subject, Decoder(), str(pairs), str(parallel))
    first, second = (one for one in report["slices"] if one["name"].endswith(".jsonl"))
    assert first["unit"] == "changed" and {"right_before", "right_after"} <= set(first["groups"][0])
    assert second["unit"] == "nats/byte" and second["items"] == 12
    assert report["worst"]["group"] == "Greek"
    assert chosen_slices(["all", str(pairs)])[-1] == str(pairs)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ('{"group": "a"}', "no group with a text or a pair"),
        ('{"group": "a", "text": "x"}\n{"group": "a", "good": "x", "bad": "y"}', ":2 has other keys"),
        ("[1]", ":1 is not a JSON object"),
        ("{", ":1 is not JSON"),
        (None, "cannot read the slice"),
    ],
)
def test_a_file_that_is_no_slice_says_where(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        chosen_slices([str(path)])


def test_choices_by_how_sure_the_original_was(tmp_path: Path) -> None:
    class Rounded(Decoder):
        """Tells signs apart by hundredths of a nat, or, with ``coarse``, not at all below a tenth."""

        def __init__(self, coarse: bool) -> None:
            super().__init__()
            steps = np.arange(VOCAB, dtype=np.float32) / 100
            row = np.trunc(10 * (steps - 0.9)) / 10 - steps * 1e-3 if coarse else steps
            self.table = np.broadcast_to(row, (VOCAB, VOCAB)).astype(np.float32)

    pairs = tmp_path / "pairs.jsonl"
    rows = [{"group": "g", "first": f"a{chr(97 + near)}", "second": "ab"} for near in range(1, 9)]
    rows += [
        {"group": "g", "first": "aa" + "z" * length, "second": "aa" + "b" * length} for length in (10, 30)
    ]
    pairs.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    report = measured(Rounded(coarse=True), Rounded(coarse=False), str(pairs))
    (one,) = (one for one in report["slices"] if one["name"] == "choices")
    assert [(group["group"], group["items"]) for group in one["groups"]] == [
        ("below 75%", 8),
        ("90% to 99%", 1),
        ("99% and more", 1),
    ]
    assert [group["harm"] > 0 for group in one["groups"]] == [True, False, False]
    assert all(group["p"] is None for group in one["groups"])


def test_changes_that_go_one_way_are_corrected_for_all_groups_and_said() -> None:
    women, men = Decoder(), Decoder()
    women.table[:, ord("s")] += 40  # of "she"
    men.table[:, ord("s")] -= 40
    report = measured(men, women, "professions")
    groups = report["slices"][0]["groups"]
    assert min(group["p_one_way"] for group in groups) >= len(groups) * 2.0**-16
    assert any(group["p_one_way"] < 0.05 for group in groups)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(report))
    assert "change one way (sign test, corrected" in console.export_text()


def test_an_unknown_slice_names_the_choices() -> None:
    with pytest.raises(UnknownName, match="languages"):
        chosen_slices(["langages"])


def test_texts_side_by_side_lose_what_each_loses_alone() -> None:
    subject, original = Decoder(0.5), Decoder()
    texts = [np.arange(97, 97 + length) for length in (5, 80, 2)]
    together = token_damage(subject, original, texts)
    for ids, found in zip(texts, together, strict=True):
        (alone,) = token_damage(subject, original, [ids])
        assert len(found.kl) == len(ids) - 1
        np.testing.assert_allclose(found.kl, alone.kl)
        np.testing.assert_allclose(found.nats, alone.nats)


class Killed(Decoder):
    """Stops after so many calls."""

    left = 3

    def logits(self, ids: np.ndarray) -> np.ndarray:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().logits(ids)


def test_a_killed_run_goes_on_where_it_was_and_says_the_same(tmp_path: Path) -> None:
    original, record = Decoder(), tmp_path / "run.jsonl"
    whole = measured(Decoder(0.5), original, "professions", "people")
    with pytest.raises(KeyboardInterrupt):
        measure_slices(Killed(0.5), original, ["professions", "people"], NOTHING, KeptRows(record, "a"))
    kept = tmp_path / "run.jsonl.slices"
    before = kept.read_text().splitlines()
    assert len(before) == 3
    kept.write_text("\n".join([*before[:2], before[2][:-9]]))  # the last line is torn
    with pytest.raises(KeyboardInterrupt):  # it goes on behind the two: another third batch, then three more
        subject = Killed(0.5)
        measure_slices(subject, original, ["professions", "people"], NOTHING, KeptRows(record, "a"))
    rows = KeptRows(record, "a")
    assert measure_slices(Decoder(0.5), original, ["professions", "people"], NOTHING, rows) == whole
    other = KeptRows(record, "b").of("professions", [])
    assert other.rows == []
    torn, *behind = (line for line in kept.read_text().splitlines() if line not in before)
    assert torn == before[2][:-9] and all(line.endswith("}") for line in behind), "none is lost with it"
    rows.drop()
    assert not kept.exists()


def test_accuracy_by_group_of_a_classifier() -> None:
    class Classifier:
        kind, labels, max_length, tokenizer = "encoder", ("no", "yes"), 512, None

        def __init__(self, wrong: str) -> None:
            self.wrong = wrong

        def label_logits(self, texts: list[str]) -> np.ndarray:
            answers = [("yes" in text) != (self.wrong in text) for text in texts]
            return np.array([[float(not yes), float(yes)] for yes in answers], np.float32)

    rows = [
        GroupText(group, f"{group} {word} {number}", str(number), label)
        for number in range(20)
        for group in ("plain", "harmed")
        for label, word in enumerate(("no", "yes"))
    ]
    report = measured(Classifier("harmed"), Classifier("never"), "tasks", given=Given(rows=rows))
    (one,) = report["slices"]
    found = {group["group"]: (group["accuracy_before"], group["accuracy_after"]) for group in one["groups"]}
    assert found == {"plain": (1.0, 1.0), "harmed": (1.0, 0.0)}
    assert report["worst"]["group"] == "harmed"
