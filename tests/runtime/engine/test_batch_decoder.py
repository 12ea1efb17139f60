"""Several sequences side by side against the same model in numpy, one at a time and without a cache."""

from pathlib import Path

import numpy as np
import pytest
from edgepress.errors import InputError
from edgepress.runtime.api import TextModel
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine import batch_decoder as batch_module
from edgepress.runtime.engine.batch_decoder import BatchDecoder, unpadded
from edgepress.runtime.engine.decoder import Decoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runtime_toys.decoder import CONTEXT, ToyWeights, reference_logits

TOLERANCE = 3e-4


@pytest.fixture(scope="module")
def one(decoder_bundle: Path) -> Decoder:
    return Decoder.open(Bundle.open(decoder_bundle), threads=1)


@pytest.fixture
def batch(one: Decoder) -> BatchDecoder:
    return BatchDecoder(one.session, one.section)


def _ids(count: int, seed: int, vocab: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocab, count)]


def _check(found: np.ndarray, weights: ToyWeights, rows: list[list[int]]) -> None:
    assert len(found) == len(rows)
    for logits, row in zip(found, rows, strict=True):
        assert np.abs(logits - reference_logits(weights, row)[-1]).max() < TOLERANCE


def test_prompts_of_unequal_length_and_steps(batch: BatchDecoder, toy_weights: ToyWeights) -> None:
    vocab = batch.section.vocab_size
    rows = [_ids(count, count, vocab) for count in (3, 17, 1)]
    _check(batch.prefill(rows), toy_weights, rows)
    for number in range(9):
        tokens = _ids(3, 100 + number, vocab)
        rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]
        _check(batch.step(tokens), toy_weights, rows)
    assert batch.lengths == [12, 26, 10]


@pytest.mark.chain
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(st.lists(st.integers(0, 12), min_size=2, max_size=2), min_size=1, max_size=4),
    chunk=st.integers(1, 7),
)
def test_conversations_go_on_in_any_pieces(
    batch: BatchDecoder, toy_weights: ToyWeights, turns: list[list[int]], chunk: int
) -> None:
    vocab, seed = batch.section.vocab_size, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module, "PREFILL_CHUNK", chunk)
        patch.setattr(batch_module, "CAPACITY_STEP", 8)  # buffers grow on the way
        rows = [_ids(2, 1, vocab), _ids(5, 2, vocab)]
        logits = batch.prefill(rows)
        for turn in turns:
            more = [_ids(count, seed := seed + 1, vocab) for count in turn]
            rows = [row + new for row, new in zip(rows, more, strict=True)]
            logits = batch.extend(more)
            _check(logits, toy_weights, rows)
            tokens = _ids(2, seed := seed + 1, vocab)
            rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]
            logits = batch.step(tokens)
        _check(logits, toy_weights, rows)


def test_another_batch_starts_afresh(batch: BatchDecoder, toy_weights: ToyWeights) -> None:
    vocab = batch.section.vocab_size
    batch.prefill([_ids(30, 1, vocab), _ids(20, 2, vocab)])
    for count in (2, 3, 1):
        rows = [_ids(4 + number, number, vocab) for number in range(count)]
        _check(batch.prefill(rows), toy_weights, rows)


@pytest.mark.chain
def test_the_whole_context_and_no_more(batch: BatchDecoder, toy_weights: ToyWeights) -> None:
    vocab = batch.section.vocab_size
    rows = [_ids(CONTEXT - 1, 1, vocab), _ids(2, 2, vocab)]
    batch.prefill(rows)
    _check(batch.step([3, 4]), toy_weights, [[*rows[0], 3], [*rows[1], 4]])
    with pytest.raises(InputError, match="context"):
        batch.step([0, 0])
    with pytest.raises(InputError, match="context"):
        batch.prefill(rows, new_tokens=2)


def test_what_is_refused(batch: BatchDecoder) -> None:
    with pytest.raises(InputError, match="no prompts"):
        batch.prefill([])
    with pytest.raises(InputError, match="no tokens"):
        batch.prefill([[1], []])
    with pytest.raises(InputError, match="vocabulary"):
        batch.prefill([[1], [-1]])
    batch.prefill([[1], [2]])
    with pytest.raises(InputError, match="2 sequences"):
        batch.step([1])
    with pytest.raises(InputError, match="2 sequences"):
        batch.extend([[1]])
    with pytest.raises(InputError, match="vocabulary"):
        batch.step([1, 10**6])


def test_padding_on_either_side_is_left_out(batch: BatchDecoder, toy_weights: ToyWeights) -> None:
    ids = np.array([[0, 0, 5, 7], [9, 4, 3, 2], [8, 6, 0, 0]])
    mask = np.array([[0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    rows = unpadded(ids, mask)
    assert rows == [[5, 7], [9, 4, 3, 2], [8, 6]]
    _check(batch.prefill(rows), toy_weights, rows)
    with pytest.raises(InputError, match="holes"):
        unpadded(ids[:1], np.array([[1, 0, 1, 1]]))
    with pytest.raises(InputError, match="shape"):
        unpadded(ids, mask[:2])


@pytest.mark.chain
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sequences=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=5),
    steps=st.integers(0, 3),
)
def test_resuming_is_prefilling(
    one: Decoder, toy_weights: ToyWeights, sequences: list[list[int]], steps: int
) -> None:
    for ids in sequences:
        logits = one.resume(ids, new_tokens=steps).copy()
        assert one.length == len(ids)
        assert np.abs(logits - reference_logits(toy_weights, ids)[-1]).max() < TOLERANCE
        for token in range(steps):
            one.step(token)


def test_resuming_runs_only_what_is_new(one: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = _ids(20, 3, one.vocab_size)
    run: list[int] = []
    original = Decoder._run
    monkeypatch.setattr(
        Decoder, "_run", lambda self, binding, new: run.append(new.shape[1]) or original(self, binding, new)
    )
    one.prefill(ids[:10])
    one.step(ids[10])
    one.resume(ids)
    one.resume(ids)
    one.resume([*ids[:15], ids[15] + 1, *ids[16:]])
    assert run == [10, 1, 9, 1, 5]
    with pytest.raises(InputError, match="context"):
        one.resume(ids, new_tokens=CONTEXT)
    assert one.length == 20


@pytest.mark.chain
def test_a_batch_of_replies(text_model: TextModel) -> None:
    prompts = ["coins", "the river ran under old stone bridges", "boats drift"]
    alone = [text_model.generate(prompt, chat=False, max_new_tokens=20) for prompt in prompts]
    together = text_model.generate_batch(prompts, chat=False, max_new_tokens=20)
    for one_reply, reply in zip(alone, together, strict=True):
        assert reply.token_ids == one_reply.token_ids
        assert (reply.text, reply.finish_reason) == (one_reply.text, one_reply.finish_reason)
        assert reply.prompt_tokens == one_reply.prompt_tokens
    drawn = text_model.generate_batch(prompts, temperature=1.0, seed=4, max_new_tokens=10, chat=False)
    again = text_model.generate(prompts[1], temperature=1.0, seed=4, max_new_tokens=10, chat=False)
    assert drawn[1].token_ids == again.token_ids
    with pytest.raises(InputError, match="max_new_tokens"):
        text_model.generate_batch(prompts, max_new_tokens=0)


@pytest.mark.chain
def test_a_conversation_that_goes_on(text_model: TextModel) -> None:
    messages = [{"role": "user", "content": "merchants counted"}]
    first = text_model.generate(messages, max_new_tokens=8)
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "coins"}]
    resumed = text_model.generate(messages, max_new_tokens=8, resume=True)
    assert resumed.token_ids == text_model.generate(messages, max_new_tokens=8).token_ids
