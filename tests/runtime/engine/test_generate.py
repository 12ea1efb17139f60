"""Generation: what ends it, what is counted, and that streams equal a plain loop."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgepress.errors import InputError
from edgepress.runtime.api import TextModel, open_bundle
from runtime_toys.decoder import CONTEXT, ToyWeights, reference_logits

pytestmark = pytest.mark.chain


def _greedy(weights: ToyWeights, ids: list[int], count: int) -> list[int]:
    """Greedy continuation by running the numpy model over everything, again and again."""
    ids = list(ids)
    for _ in range(count):
        logits = reference_logits(weights, ids)[-1]
        second, first = np.sort(logits)[-2:]
        assert first - second > 1e-4  # ten times what the order of sums makes: no processor chooses another
        ids.append(int(logits.argmax()))
    return ids[-count:]


def _prompt(model: TextModel, wanted: int = 12) -> str:
    """A prompt whose greedy continuation of ``wanted`` tokens meets no end token."""
    for number in range(50):
        prompt = f"merchants counted {number}"
        if 2 not in model.generate(prompt, chat=False, max_new_tokens=wanted).token_ids:
            return prompt
    raise AssertionError("every prompt ends at once")


def test_greedy_tokens_equal_the_numpy_model(text_model: TextModel, toy_weights: ToyWeights) -> None:
    prompt = _prompt(text_model)
    result = text_model.generate(prompt, chat=False, max_new_tokens=12)
    ids = text_model.tokenizer.encode(prompt)
    assert list(result.token_ids) == _greedy(toy_weights, ids, 12)
    assert (result.prompt_tokens, result.finish_reason) == (len(ids), "length")
    assert result.ttft_s > 0
    assert result.tokens_per_second is not None


def test_pieces_join_to_the_text(text_model: TextModel) -> None:
    pieces = text_model.stream("coins", temperature=1.0, seed=3, max_new_tokens=60)
    shown = list(pieces)
    assert len(shown) > 1
    assert "".join(shown) == pieces.result.text


def test_the_result_finishes_the_stream(text_model: TextModel) -> None:
    pieces = text_model.stream("coins", temperature=1.0, seed=3, max_new_tokens=20)
    first = next(pieces)
    assert pieces.result.text.startswith(first)
    assert list(pieces) == []


def test_a_stream_that_another_took_the_place_of_says_so(text_model: TextModel) -> None:
    """It would go on with the other's tokens in the cache."""
    whole = text_model.stream("coins", temperature=1.0, seed=3, max_new_tokens=20)
    text = whole.result.text
    first = text_model.stream("coins", temperature=1.0, seed=3, max_new_tokens=20)
    next(first)
    second = text_model.stream("coins", temperature=1.0, seed=3, max_new_tokens=20)
    for go_on in (lambda: next(first), lambda: first.result):
        with pytest.raises(InputError, match="ended by the next one of its model"):
            go_on()
    assert "".join(second) == text == whole.result.text


def test_eos_ends_and_is_not_shown(text_model: TextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = _prompt(text_model)
    tokens = text_model.generate(prompt, chat=False, max_new_tokens=12).token_ids
    end = tokens[5]
    first = tokens.index(end)
    section = replace(text_model.decoder.section, eos_token_ids=[end])
    monkeypatch.setattr(text_model.decoder, "section", section)
    result = text_model.generate(prompt, chat=False, max_new_tokens=12)
    assert result.finish_reason == "eos"
    assert result.token_ids == tokens[: first + 1]
    assert text_model.tokenizer.decode(tokens[:first]).startswith(result.text)


def test_a_stop_string_across_tokens(text_model: TextModel) -> None:
    text = ""
    for seed in range(20):
        full = text_model.generate("coins", temperature=1.0, seed=seed, max_new_tokens=40)
        text = full.text
        if full.finish_reason == "length" and text.isascii() and len(text) > 30:
            break
    stop = text[14:20]
    result = text_model.generate("coins", temperature=1.0, seed=seed, max_new_tokens=40, stop=["never", stop])
    assert result.finish_reason == "stop"
    assert result.text == text[: text.index(stop)]


def test_a_seed_gives_the_same_text(text_model: TextModel) -> None:
    settings = {
        "temperature": 1.0,
        "top_k": 40,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "max_new_tokens": 15,
    }
    texts = [text_model.generate("coins", seed=seed, **settings).token_ids for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


def test_chat_is_used_when_there_is_a_template(text_model: TextModel) -> None:
    tokenizer = text_model.tokenizer
    expected = tokenizer.encode("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", special=False)
    assert text_model.prompt_ids("hi") == text_model.prompt_ids("hi", chat=True) == expected
    assert text_model.prompt_ids([{"role": "user", "content": "hi"}]) == expected
    assert text_model.prompt_ids("hi", chat=False) == tokenizer.encode("hi")


def test_a_request_that_does_not_fit_names_the_context(text_model: TextModel) -> None:
    with pytest.raises(InputError, match=f"context of {CONTEXT}"):
        text_model.generate("coins", max_new_tokens=CONTEXT)


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"temperature": -1.0}])
def test_wrong_options(text_model: TextModel, options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        text_model.generate("coins", **options)


def test_an_empty_prompt(text_model: TextModel) -> None:
    for prompt in ("", []):
        with pytest.raises(InputError, match="empty"):
            text_model.generate(prompt)


def test_generation_to_the_very_end_of_the_context(decoder_bundle: Path) -> None:
    model = open_bundle(decoder_bundle, threads=1)
    assert isinstance(model, TextModel)
    ids = model.tokenizer.encode("coins")
    room = CONTEXT - len(ids) + 1
    result = model.generate("coins", chat=False, temperature=5.0, seed=1, max_new_tokens=room)
    assert result.finish_reason in ("length", "eos")
    assert np.isfinite(result.ttft_s)


def test_threads_that_share_a_model_take_turns(text_model: TextModel) -> None:
    prompts = [f"merchants counted {number}" for number in range(12)]

    def answer(prompt: str) -> tuple[int, ...]:
        return text_model.generate(prompt, chat=False, max_new_tokens=16).token_ids

    alone = [answer(prompt) for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, prompts * 5)) == alone * 5
