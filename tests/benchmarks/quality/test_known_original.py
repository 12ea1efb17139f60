"""An original that answers from the cache: every number is what it was without one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.benchmarks.quality import greedy_text
from edgepress.benchmarks.quality.known_original import REPLIES, KnownOriginal, cache_of
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.benchmarks.records import answer_cache, streamed_subject
from edgepress.benchmarks.records.answer_cache import AnswerCache
from edgepress.benchmarks.records.checkpoint_subject import CheckpointSubject
from edgepress.benchmarks.records.record import Measurement
from edgepress.benchmarks.records.subjects import OpenModel, open_subject
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.journal import sealed
from edgepress.export.api import export_bundle
from safetensors.numpy import save

from .test_validate import noisy, with_pooling

WINDOWS = {"windows": 3, "length": 24, "threads": 1}
DECODERS = ("llama", "opt", "gpt2", "gpt_oss", "gemma2", "cohere", "granite", "bloom", "mamba", "jamba")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(answer_cache, "cache_directory", lambda: tmp_path / "cache")
    monkeypatch.setattr(greedy_text, "NEW_TOKENS", 12)
    return tmp_path / "cache" / answer_cache.FOLDER


def numbers(line: Measurement) -> dict[str, Any]:
    """All of a line but when and how it was made."""
    found = line.model_dump(exclude={"id", "created_utc"})
    found["protocol"].pop("original_from_cache", None)
    return found


def never(*_: object, **__: object) -> None:
    raise AssertionError("the original was asked")


def three_times(folder: Path, validate: Callable[[], Measurement], *expected: str) -> None:
    """Without an entry, with all, and with all of them damaged."""
    first, again = validate(), validate()
    assert "original_from_cache" not in first.protocol
    assert again.protocol["original_from_cache"] == ", ".join(expected)
    assert numbers(again) == numbers(first)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    broken = validate()
    assert "original_from_cache" not in broken.protocol and numbers(broken) == numbers(first)


@pytest.mark.parametrize("family", DECODERS)
def test_the_head_makes_the_same_logits_of_the_states_behind_the_blocks(
    family: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = open_subject(make_decoder(tmp_path / "m", family), threads=1)
    ids = np.random.default_rng(0).integers(5, 60, (1, 17))
    assert model.behind_blocks is not None
    logits, states = model.behind_blocks.read(ids)
    assert states is not None and states.shape[:2] == (1, 17)
    np.testing.assert_array_equal(logits, model.logits(ids))
    np.testing.assert_array_equal(model.behind_blocks.logits(states), logits)
    np.testing.assert_array_equal(model.logits(ids), logits)  # its blocks are there again


@pytest.mark.chain
def test_a_decoder(pico_llama: Path, pico_text: Path, tmp_path: Path, folder: Path) -> None:
    worse = noisy(pico_llama, tmp_path / "worse", 0.1)

    def validate() -> Measurement:
        return validate_bundle(worse, pico_llama, text=pico_text, **WINDOWS)

    three_times(folder, validate, "last states", "replies")


@pytest.mark.chain
def test_another_candidate_asks_the_original_of_its_own_replies_alone(
    pico_llama: Path, pico_text: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"text": pico_text, "replies": False, **WINDOWS}
    validate_bundle(noisy(pico_llama, tmp_path / "a", 0.1), pico_llama, **options)
    other = open_subject(noisy(pico_llama, tmp_path / "b", 0.3), threads=1)
    original = open_subject(pico_llama, threads=1)
    monkeypatch.setattr(original, "logits", never)
    monkeypatch.setattr(original.behind_blocks, "read", never)
    known = KnownOriginal(original, cache_of(original))
    from edgepress.benchmarks.quality.accuracy import score_windows
    from edgepress.benchmarks.quality.held_out_text import measured_windows
    from edgepress.compress.text.corpus import read_corpus

    texts = read_corpus(str(pico_text), field="text", split="held-out").texts()
    ids = measured_windows(known.tokenizer, texts, count=3, length=24, placement="spread")
    known.read_ahead(ids)
    found = score_windows(other, known, ids)
    expected = score_windows(other, open_subject(pico_llama, threads=1), ids)
    for name, scores in expected.items():
        np.testing.assert_array_equal(found[name].subject, scores.subject)
        np.testing.assert_array_equal(found[name].original, scores.original)


@pytest.mark.chain
def test_a_decoder_that_does_not_fit_memory(
    pico_llama: Path, pico_text: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = noisy(pico_llama, tmp_path / "worse", 0.1)
    monkeypatch.setattr(streamed_subject, "_SHARE", 1e-9)
    three_times(folder, lambda: validate_bundle(worse, pico_llama, text=pico_text, **WINDOWS), "last states")


@pytest.mark.chain
def test_a_bundle_as_the_original(pico_llama: Path, pico_text: Path, tmp_path: Path, folder: Path) -> None:
    bundle = export_bundle(pico_llama, output=tmp_path / "bundle", validate=False)
    three_times(folder, lambda: validate_bundle(pico_llama, bundle, text=pico_text, **WINDOWS), "replies")


@pytest.mark.slow
def test_an_encoder(pico_bert: Path, pico_text: Path, tmp_path: Path, folder: Path) -> None:
    encoder = with_pooling(pico_bert, tmp_path / "encoder")
    worse = noisy(encoder, tmp_path / "worse", 0.1)

    def validate() -> Measurement:
        return validate_bundle(worse, encoder, text=pico_text, sentences=20, threads=1)

    three_times(folder, validate, "embeddings")


@pytest.mark.chain
def test_an_encoder_decoder(pico_t5: Path, pico_text: Path, tmp_path: Path, folder: Path) -> None:
    worse = noisy(pico_t5, tmp_path / "worse", 0.1)

    def validate() -> Measurement:
        return validate_bundle(worse, pico_t5, text=pico_text, sentences=3, length=24, threads=1)

    three_times(folder, validate, "replies")


@pytest.mark.chain
def test_a_model_that_reads_images(
    make_vision: Callable[..., Path], pico_images: list[Path], tmp_path: Path, folder: Path
) -> None:
    model = make_vision(tmp_path / "model", "vit", labels=["cat", "dog", "boat"])
    worse = noisy(model, tmp_path / "worse", 0.1)
    three_times(folder, lambda: validate_bundle(worse, model, text=pico_images[0].parent), "logits")


@pytest.mark.chain
def test_a_model_that_hears(pico_whisper: Path, pico_sounds: Path, tmp_path: Path, folder: Path) -> None:
    worse = noisy(pico_whisper, tmp_path / "worse", 0.1)
    three_times(
        folder, lambda: validate_bundle(worse, pico_whisper, text=pico_sounds, sentences=3), "replies"
    )


@pytest.mark.chain
def test_a_model_against_itself(pico_llama: Path, pico_text: Path, folder: Path) -> None:
    def validate() -> Measurement:
        return validate_bundle(pico_llama, pico_llama, text=pico_text, **WINDOWS)

    three_times(folder, validate, "last states", "replies")


@pytest.mark.chain
def test_original_and_candidate_are_opened_once(
    pico_llama: Path, pico_text: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse, opened, whole = noisy(pico_llama, tmp_path / "worse", 0.1), [], WeightSource.open

    def counted(path: Path) -> WeightSource:
        opened.append(path)
        return whole(path)

    monkeypatch.setattr(WeightSource, "open", counted)
    validate_bundle(worse, pico_llama, text=pico_text, **WINDOWS)
    assert sorted(opened) == sorted([worse, pico_llama])


HOSTILE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "another type": {"ids": np.zeros(2, np.float32), "lengths": np.array([1, 1])},
    "too few": {"ids": np.zeros(1, np.int64), "lengths": np.array([1])},
    "no vector": {"ids": np.zeros((2, 1), np.int64), "lengths": np.array([1, 1])},
    "lengths that do not add up": {"ids": np.zeros(2, np.int64), "lengths": np.array([1, 2])},
    "a negative length": {"ids": np.zeros(2, np.int64), "lengths": np.array([3, -1])},
    "an empty reply": {"ids": np.zeros(2, np.int64), "lengths": np.array([2, 0])},
    "a long reply": {"ids": np.zeros(20, np.int64), "lengths": np.array([19, 1])},
    "a negative id": {"ids": np.array([1, -1]), "lengths": np.array([1, 1])},
    "an id that no token has": {"ids": np.array([1, 1 << 40]), "lengths": np.array([1, 1])},
}


@pytest.fixture(scope="module")
def opened(pico_llama: Path) -> OpenModel:
    return open_subject(pico_llama, threads=1)


@pytest.mark.chain
@pytest.mark.parametrize("case", HOSTILE)
def test_replies_that_cannot_be_are_written_by_the_model(case: str, opened: OpenModel, folder: Path) -> None:
    model, prompts = opened, ["the river", "boats"]
    expected = KnownOriginal(model, cache_of(model)).greedy(prompts, 8)
    (path,) = folder.iterdir()
    path.write_bytes(sealed(save(HOSTILE[case])))
    cache = cache_of(model)
    assert KnownOriginal(model, cache).greedy(prompts, 8) == expected == model.greedy(prompts, 8)
    assert cache.used == []
    assert KnownOriginal(model, cache).greedy(prompts, 8) == expected
    assert cache.used == [REPLIES]


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((47, 64), np.float32),
        np.zeros((48, 64), np.float64),
        np.zeros((48, 63), np.float32),
        np.zeros(48, np.float32),
        np.full((48, 64), np.nan, np.float32),
    ],
    ids=["too few", "another type", "too narrow", "no rows", "not finite"],
)
def test_states_that_cannot_be_are_computed(rows: np.ndarray, pico_llama: Path, folder: Path) -> None:
    model = open_subject(pico_llama, threads=1)
    windows = np.random.default_rng(0).integers(5, 60, (2, 24))

    def read(cache: AnswerCache) -> np.ndarray:
        known = KnownOriginal(model, cache)
        known.read_ahead(windows)
        return np.concatenate([known.logits(window[None]) for window in windows])

    expected = read(cache_of(model))
    (path,) = folder.iterdir()
    path.write_bytes(sealed(save({"states": rows})))
    cache = cache_of(model)
    np.testing.assert_array_equal(read(cache), expected)
    assert cache.used == []


def test_a_model_that_cannot_be_cut_is_asked_each_time(
    pico_llama: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_subject(pico_llama, threads=1)
    assert isinstance(model, CheckpointSubject)
    monkeypatch.setattr(model.behind_blocks, "logits", lambda states: states)
    known = KnownOriginal(model, cache_of(model))
    window = np.random.default_rng(0).integers(5, 60, (1, 24))
    known.read_ahead(window)
    np.testing.assert_array_equal(known.logits(window), model.logits(window))
    assert not folder.exists()


def test_nothing_is_kept_of_what_a_gpu_computes(pico_llama: Path) -> None:
    model = open_subject(pico_llama, threads=1)
    assert cache_of(model).owner is not None
    model.runtime["device"] = "cuda:0"
    assert cache_of(model).owner is None
