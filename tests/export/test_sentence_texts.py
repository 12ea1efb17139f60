"""A text is read as sentence-transformers reads it, or it is said that it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.errors import CheckpointError
from edgepress.export.sentence_texts import check_texts
from edgepress.storage import read_json, write_json
from edgepress.terminal import Silent

Make = Callable[..., Path]


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def with_settings(folder: Path, **more: Any) -> Path:
    config = folder / "tokenizer_config.json"
    write_json(config, {**read_json(config), **more})
    return folder


@pytest.mark.chain
def test_an_end_that_is_not_in_the_tokenizers_file(
    make_decoder: Make, make_encoder_decoder: Make, tmp_path: Path
) -> None:
    notes = Notes()
    check_texts(with_settings(make_decoder(tmp_path / "none", "qwen3"), add_eos_token=False), notes)
    check_texts(with_settings(make_encoder_decoder(tmp_path / "ends", "t5"), add_eos_token=True), notes)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json ends no text"):
        check_texts(with_settings(make_decoder(tmp_path / "lacks", "qwen3"), add_eos_token=True), notes)
    assert not notes.said


def test_a_prompt_that_others_put_in_front(tmp_path: Path) -> None:
    notes, prompts = Notes(), {"query": "find: ", "document": ""}
    for name in (None, "document", "absent"):
        write_json(
            tmp_path / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": name}
        )
        check_texts(tmp_path, notes)
    assert not notes.said
    write_json(
        tmp_path / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "query"}
    )
    check_texts(tmp_path, notes)
    assert len(notes.said) == 1 and "'find: '" in notes.said[0]
