"""The tokens that a proof runs on."""

from pathlib import Path

import numpy as np
from edgepress.benchmarks.lab.same_bytes.pico_tokenizers import save_pieces
from edgepress.export.proof.proof_text import token_rows
from edgepress.runtime.text.tokenizer import Tokenizer

WORDS = ["the river ran under old stone bridges", "seven boats went down to the sea"] * 20


def test_rows_begin_as_a_text_does(tmp_path: Path, pico_llama: Path) -> None:
    """With BOS where the tokenizer puts one in front: a Gemma answers in another way without it."""
    save_pieces(tmp_path, WORDS, 320, prefixed=False)
    (tmp_path / "text.txt").write_text(" ".join(WORDS))
    tokenizer = Tokenizer.open(tmp_path)
    rows = token_rows(tmp_path, tmp_path / "text.txt", 3, 20, 320)
    assert rows.shape == (3, 20) and (rows[:, 0] == tokenizer.bos_id).all()
    assert rows[:, 1:].reshape(-1).tolist() == tokenizer.encode(" ".join(WORDS), special=False)[:57]
    plain = token_rows(pico_llama, tmp_path / "text.txt", 3, 20, 320)
    ids = Tokenizer.open(pico_llama).encode(" ".join(WORDS), special=False)
    assert np.array_equal(plain.reshape(-1), np.resize(ids, 60))
