"""What is held out: every eighth micro-batch of little text, about as many tokens as are enough of much."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.files_as_calibration import calibration_of_files
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text import micro_batches as measured_text
from edgepress.compress.text.calibration import Calibration, calibration_from
from edgepress.compress.text.micro_batches import MeasuredText, MicroBatch, held_out_tokens, hold_out
from edgepress.compress.text.token_batch import rows_of
from edgepress.errors import CalibrationError
from edgepress.runtime.text.tokenizer import Tokenizer

LENGTH = 512
# Its tokenizer runs in a process of its own.
PAIRED = pytest.param("pico_t5", marks=pytest.mark.chain)


def micro_batches(count: int) -> list[MicroBatch]:
    row = torch.ones(1, LENGTH, dtype=torch.int64)
    return [MicroBatch(number, row, row, LENGTH) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "kept"), [(2, 1), (8, 1), (17, 2), (64, 8), (512, 64), (2048, 64), (3000, 65)]
)
def test_micro_batches_are_held_out_evenly(count: int, kept: int) -> None:
    learned_from, held_out = hold_out(micro_batches(count))
    assert len(held_out) == kept
    assert len(learned_from) + kept == count
    numbers = [batch.number for batch in held_out]
    assert not set(numbers) & {batch.number for batch in learned_from}
    assert len({later - earlier for earlier, later in pairwise(numbers)}) <= 1


@pytest.mark.parametrize("count", [64, 512, 4096])
def test_the_plan_knows_how_much_that_is(count: int) -> None:
    held_out = sum(batch.tokens for batch in hold_out(micro_batches(count))[1])
    assert held_out == pytest.approx(held_out_tokens(count * LENGTH), rel=0.1)


def test_one_micro_batch_is_not_enough() -> None:
    with pytest.raises(CalibrationError, match="1 micro-batch of text is too few"):
        hold_out(micro_batches(1))


def calibrated(model: Path, text: Path, samples: int) -> Calibration:
    kind: Any = WeightSource.open(model).anatomy.kind
    return calibration_from(str(text), Tokenizer.open(model), kind=kind, samples=samples, length=32)


def rows(micro_batches: list[MicroBatch]) -> list[tuple[int, ...]]:
    pairs = [zip(each.input_ids, each.attention_mask, strict=True) for each in micro_batches]
    found = [one[mask != 0] for pair in pairs for one, mask in pair]
    return [tuple(row.tolist()) for row in found]


@pytest.mark.parametrize("kind", ["pico_llama", "pico_bert", PAIRED])
@pytest.mark.parametrize(("samples", "most"), [(2, 4096), (3, 4096), (16, 4096), (40, 4096), (16, 256)])
def test_the_parts_share_no_row(
    kind: str,
    samples: int,
    most: int,
    request: pytest.FixtureRequest,
    pico_text: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measured_text, "MEASURED_TOKENS", most)
    model = request.getfixturevalue(kind)
    calibration = calibrated(model, pico_text, samples)
    measured, looked = (rows(part) for part in MeasuredText(calibration, "fit").apart(8192))
    assert measured and looked and not set(measured) & set(looked)
    assert len(measured) + len(looked) == samples
    if calibration.effective_tokens <= most:
        assert min(len(measured), len(looked)) >= samples // 3


def test_one_sequence_is_too_few(pico_llama: Path, pico_text: Path) -> None:
    text = MeasuredText(calibrated(pico_llama, pico_text, 1), "fit")
    with pytest.raises(CalibrationError, match="32 tokens in 1 sequence") as error:
        text.apart(8192)
    assert "--samples 2" in error.value.fix


@pytest.mark.chain
def test_more_is_read_where_little_is_written(
    pico_whisper: Path, pico_sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WeightSource.open(pico_whisper)
    found = calibration_of_files(source, str(pico_sounds), samples=12, seed=0, batch_size=2)
    assert found.written_tokens < found.effective_tokens == 1200
    mean = found.written_tokens // 12
    for least, most_read, taken in ((200, 1, 2), (200, 3, 6), (4 * mean, 50, 4), (2000, 3, 12)):
        monkeypatch.setattr(measured_text, "MEASURED_TOKENS", least)
        text = MeasuredText(found, "fit", most_read)
        assert len(text.first) == taken
        measured, looked = text.apart(200)
        assert {one.number for one in measured}.isdisjoint(one.number for one in looked) and looked


def test_of_text_as_much_is_written_as_is_read(pico_llama: Path, pico_text: Path) -> None:
    found = calibrated(pico_llama, pico_text, 40)
    assert found.written_tokens == found.effective_tokens == 40 * 32
    once, often = MeasuredText(found, "fit"), MeasuredText(found, "fit", 3)
    assert len(once.first) == len(often.first) and len(once.others(300)) == len(often.others(300))


@pytest.mark.parametrize("kind", ["pico_llama", PAIRED])
@pytest.mark.parametrize(("samples", "asked", "taken"), [(16, 4, 4), (16, 90, 8), (3, 4, 1), (2, 1, 1)])
def test_rows_of_a_calibration_are_parted(
    kind: str, samples: int, asked: int, taken: int, request: pytest.FixtureRequest, pico_text: Path
) -> None:
    whole = calibrated(request.getfixturevalue(kind), pico_text, samples)
    some, others = whole.parted(asked)
    assert (some.samples, others.samples) == (taken, samples - taken)
    each = [
        [tuple(row.ids) for one in part.batches for row in rows_of(one)] for part in (whole, some, others)
    ]
    assert sorted(each[0]) == sorted(each[1] + each[2])
    if samples % taken == 0:
        assert each[1] == each[0][:: samples // taken]
    assert len({one.sha256 for one in (whole, some, others)}) == 3
