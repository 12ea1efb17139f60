"""Windows: exact length, in order, nothing lost but the tail, BOS where the tokenizer wants one."""

from pathlib import Path

import numpy as np
from edgepress.compress.text.token_batch import starts_with_bos, token_stream, windows
from edgepress.runtime.text.tokenizer import Tokenizer
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 200), st.integers(2, 40), st.booleans())
def test_windows_are_the_stream_in_order(tokens: int, length: int, with_bos: bool) -> None:
    stream = np.arange(tokens, dtype=np.int64)
    cut = windows(stream, length, bos=-1 if with_bos else None)
    body = cut[:, 1:] if with_bos else cut
    assert cut.shape[1] == length
    assert not with_bos or (cut[:, 0] == -1).all()
    np.testing.assert_array_equal(body.ravel(), stream[: body.size])
    assert tokens - body.size < body.shape[1]


def test_stream_is_the_joined_text(pico_llama: Path) -> None:
    tokenizer = Tokenizer.open(pico_llama)
    texts = ["the river ran", "under old bridges", "while merchants counted"]
    stream = token_stream(tokenizer, texts)
    np.testing.assert_array_equal(stream, tokenizer.encode("\n\n".join(texts), special=False))
    np.testing.assert_array_equal(token_stream(tokenizer, texts, limit=5), stream[:5])
    assert token_stream(tokenizer, []).shape == (0,)


def test_chunks_join_to_the_same_text(pico_llama: Path) -> None:
    tokenizer = Tokenizer.open(pico_llama)
    texts = [f"boats drift {index}" for index in range(20)]
    stream = token_stream(tokenizer, texts, chunk=30)
    assert tokenizer.decode([int(i) for i in stream]) == "\n\n".join(texts)


def test_bos_only_where_the_tokenizer_adds_it(pico_llama: Path, pico_bert: Path, tmp_path: Path) -> None:
    import shutil

    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import TemplateProcessing

    assert not starts_with_bos(Tokenizer.open(pico_llama))
    assert not starts_with_bos(Tokenizer.open(pico_bert))
    shutil.copy(pico_llama / "tokenizer_config.json", tmp_path)
    backend = Backend.from_file(str(pico_llama / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(
        single="<|im_start|> $A", pair="<|im_start|> $A $B", special_tokens=[("<|im_start|>", 1)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    assert starts_with_bos(Tokenizer.open(tmp_path))
