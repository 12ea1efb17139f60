"""The decoder over shared buffers against the same model in numpy without a cache."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.errors import BundleError, InputError, OutOfResource
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine import decoder as decoder_module
from edgepress.runtime.engine.decoder import Decoder
from edgepress.runtime.engine.kv_cache import CacheBuffers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runtime_toys.bundle import edit_manifest
from runtime_toys.decoder import CONTEXT, ToyWeights, reference_logits, section

# Logits reach 30 and the two layers amplify rounding; a wrong position or head is off by more than 1.
TOLERANCE = 3e-4


@pytest.fixture(scope="module")
def decoder(decoder_bundle: Path) -> Decoder:
    return Decoder.open(Bundle.open(decoder_bundle), threads=1)


def _ids(vocab: int, count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocab, count)]


def test_steps_equal_a_full_pass(decoder: Decoder, toy_weights: ToyWeights) -> None:
    ids = _ids(decoder.vocab_size, 60)
    expected = reference_logits(toy_weights, ids)
    found = [decoder.prefill(ids[:7]).copy(), *(decoder.step(token).copy() for token in ids[7:])]
    assert np.abs(np.array(found) - expected[6:]).max() < TOLERANCE
    assert decoder.length == 60


def test_logits_at_all_positions(decoder: Decoder, toy_weights: ToyWeights) -> None:
    rows = [_ids(decoder.vocab_size, 33, seed) for seed in range(3)]
    found = decoder.logits(np.array(rows))
    assert found.shape == (3, 33, decoder.vocab_size)
    assert found.dtype == np.float32
    for row, logits in zip(rows, found, strict=True):
        assert np.abs(logits - reference_logits(toy_weights, row)).max() < TOLERANCE
        assert np.abs(logits - decoder.logits(np.array([row]))[0]).max() < TOLERANCE


def test_padding_on_the_right_changes_nothing_before_it(decoder: Decoder, toy_weights: ToyWeights) -> None:
    short, long = _ids(decoder.vocab_size, 5, 1), _ids(decoder.vocab_size, 12, 2)
    found = decoder.logits(np.array([short + [0] * 7, long]))
    assert np.abs(found[0, :5] - reference_logits(toy_weights, short)).max() < TOLERANCE


def test_logits_leave_the_sequence_alone(decoder: Decoder, toy_weights: ToyWeights) -> None:
    ids = _ids(decoder.vocab_size, 9)
    decoder.prefill(ids[:8])
    decoder.logits(np.array([_ids(decoder.vocab_size, 20, 5)]))
    assert np.abs(decoder.step(ids[8]) - reference_logits(toy_weights, ids)[-1]).max() < TOLERANCE


@pytest.mark.chain
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 20), min_size=1, max_size=5), chunk=st.integers(1, 9))
def test_any_division_into_chunks_gives_the_same_logits(
    decoder: Decoder, toy_weights: ToyWeights, cuts: list[int], chunk: int
) -> None:
    ids = _ids(decoder.vocab_size, sum(cuts), seed=len(cuts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_module, "PREFILL_CHUNK", chunk)
        logits = decoder.prefill(ids[: cuts[0]])
        start = cuts[0]
        for size in cuts[1:]:
            logits = decoder.extend(ids[start : start + size])
            start += size
    assert np.abs(logits - reference_logits(toy_weights, ids)[-1]).max() < TOLERANCE


def test_buffers_grow_and_keep_what_they_hold(
    decoder_bundle: Path, toy_weights: ToyWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "CAPACITY_STEP", 4)
    decoder = Decoder.open(Bundle.open(decoder_bundle), threads=1)
    ids = _ids(decoder.vocab_size, 50)
    expected = reference_logits(toy_weights, ids)
    decoder.prefill(ids[:3])
    capacities = set()
    for position in range(3, 50):
        assert np.abs(decoder.step(ids[position]) - expected[position]).max() < TOLERANCE
        capacities.add(decoder._cache.capacity if decoder._cache else 0)
    assert capacities == {4, 8, 16, 32, 64}


def test_a_new_prompt_forgets_the_old_one(decoder: Decoder, toy_weights: ToyWeights) -> None:
    decoder.prefill(_ids(decoder.vocab_size, 90, 3))
    ids = _ids(decoder.vocab_size, 4, 4)
    assert np.abs(decoder.prefill(ids) - reference_logits(toy_weights, ids)[-1]).max() < TOLERANCE
    assert decoder.length == 4


def test_after_a_rewind_the_same_tokens_give_the_same_logits(decoder: Decoder) -> None:
    ids = _ids(decoder.vocab_size, 12)
    decoder.prefill(ids[:8], new_tokens=4)
    first = [decoder.step(token).copy() for token in ids[8:]]
    decoder.rewind(8)
    assert decoder.length == 8
    assert all(np.array_equal(decoder.step(token), old) for token, old in zip(ids[8:], first, strict=True))
    decoder.rewind(99)
    assert decoder.length == 12


@pytest.mark.chain
def test_the_whole_context_can_be_used_and_no_more(decoder: Decoder, toy_weights: ToyWeights) -> None:
    ids = _ids(decoder.vocab_size, CONTEXT)
    decoder.prefill(ids[:-1])
    assert np.abs(decoder.step(ids[-1]) - reference_logits(toy_weights, ids)[-1]).max() < TOLERANCE
    with pytest.raises(InputError, match=f"context of {CONTEXT}"):
        decoder.step(0)
    with pytest.raises(InputError, match="context"):
        decoder.prefill(ids, new_tokens=1)
    with pytest.raises(InputError, match="context"):
        decoder.logits(np.zeros((1, CONTEXT + 1), np.int64))


@pytest.mark.parametrize("bad", [-1, 10**6])
def test_ids_outside_the_vocabulary(decoder: Decoder, bad: int) -> None:
    decoder.prefill([1])
    for call in (
        lambda: decoder.prefill([1, bad]),
        lambda: decoder.step(bad),
        lambda: decoder.logits(np.array([[bad]])),
    ):
        with pytest.raises(InputError, match=f"token id {bad}"):
            call()


def test_nothing_to_run(decoder: Decoder) -> None:
    with pytest.raises(InputError, match="no tokens"):
        decoder.prefill([])
    for shape in ((0, 3), (1, 0), (4,)):
        with pytest.raises(InputError, match="shape"):
            decoder.logits(np.zeros(shape, np.int64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 77}, "logits"),
        ({"kv_dtype": "float16"}, "float16"),
        ({"layers": [{"kv_heads": 2, "head_dim": 16}]}, "present|past_key_values.1"),
        ({"layers": [{"kv_heads": 2, "head_dim": 16}, {"kv_heads": 1, "head_dim": 64}]}, "64"),
        ({"layers": [{"kv_heads": 2, "head_dim": 16}] * 3}, "past_key_values.2"),
    ],
)
def test_a_manifest_that_does_not_fit_the_graph(
    decoder_bundle: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(decoder_bundle, tmp_path / "b")
    vocab = Bundle.open(folder).decoder.vocab_size
    edit_manifest(folder, decoder=section(vocab) | change)
    with pytest.raises(BundleError, match=message):
        Decoder.open(Bundle.open(folder), threads=1)


def test_a_context_beyond_the_graph_s_is_a_typed_error(decoder_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(decoder_bundle, tmp_path / "b")
    edit_manifest(
        folder, decoder=section(Bundle.open(folder).decoder.vocab_size) | {"context_length": 2**31 - 1}
    )
    decoder = Decoder.open(Bundle.open(folder), threads=1)
    with pytest.raises(BundleError, match="the graph failed"):
        decoder.prefill([1] * (CONTEXT + 50))


def test_no_memory_for_a_longer_cache_leaves_the_old_one(
    decoder_bundle: Path, toy_weights: ToyWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "CAPACITY_STEP", 4)
    decoder = Decoder.open(Bundle.open(decoder_bundle), threads=1)
    ids = _ids(decoder.vocab_size, 5)
    decoder.prefill(ids[:4])
    with monkeypatch.context() as patch:
        patch.setattr(CacheBuffers, "_zeros", _no_memory)
        with pytest.raises(OutOfResource, match="8 tokens"):
            decoder.step(ids[4])
    assert decoder.length == 4
    assert np.abs(decoder.step(ids[4]) - reference_logits(toy_weights, ids)[-1]).max() < TOLERANCE


def _no_memory(self: CacheBuffers, shape: tuple[int, ...], dtype: Any) -> Any:
    raise OutOfResource(f"no memory for {shape[2]} tokens")
