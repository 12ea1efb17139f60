"""A text is read as sentence-transformers reads it, or it is said that it is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.model.pooling import Pooling
from edgepress.errors import CheckpointError
from edgepress.export.sentence_texts import Prompts, check_texts, prompts_of
from edgepress.files.storage import read_json, write_json
from edgepress.terminal.progress import Silent

Make = Callable[..., Path]
MEAN = Pooling("mean", normalize=True, max_length=None)
WITHOUT = Pooling("mean", normalize=True, max_length=None, include_prompt=False)
TEXTS = {"query": "find: ", "document": ""}


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
    check_texts(with_settings(make_decoder(tmp_path / "none", "qwen3"), add_eos_token=False))
    check_texts(with_settings(make_encoder_decoder(tmp_path / "ends", "t5"), add_eos_token=True))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json ends no text"):
        check_texts(with_settings(make_decoder(tmp_path / "lacks", "qwen3"), add_eos_token=True))


def written(folder: Path, prompts: Any, default: Any = None) -> Path:
    content = {"prompts": prompts, "default_prompt_name": default}
    write_json(folder / "config_sentence_transformers.json", content)
    return folder


def test_prompts_are_those_of_the_file(tmp_path: Path) -> None:
    assert prompts_of(tmp_path, MEAN).section() == {}
    found = prompts_of(written(tmp_path, TEXTS, "query"), MEAN)
    assert found.section() == {"prompts": TEXTS, "default_prompt": "query"}
    assert found.in_front() == ["", "find: "]


@pytest.mark.parametrize(
    ("prompts", "default", "said"),
    [
        (["find: "], None, "prompts must be texts by name"),
        ({"query": 3}, None, "prompts must be texts by name"),
        (TEXTS, "absent", "default_prompt_name is 'absent', which is none"),
        (None, "query", "which is none of its prompts"),
    ],
)
def test_prompts_that_are_none(tmp_path: Path, prompts: Any, default: Any, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        prompts_of(written(tmp_path, prompts, default), MEAN)


def test_prompts_that_are_not_pooled(tmp_path: Path) -> None:
    """A bundle pools all tokens: it gets none of them, and is refused where every text has one."""
    notes = Notes()
    found = prompts_of(written(tmp_path, TEXTS, "document"), WITHOUT)
    found.check_pooled(tmp_path, notes)
    assert found.section() == {} and len(notes.said) == 1 and "include_prompt" in notes.said[0]
    with pytest.raises(CheckpointError, match="a prompt in front of every text"):
        prompts_of(written(tmp_path, TEXTS, "query"), WITHOUT).check_pooled(tmp_path, notes)
    for pooled in (Prompts({"query": ""}, "query", pooled=False), Prompts(TEXTS, "query")):
        pooled.check_pooled(tmp_path, notes)
    assert len(notes.said) == 1
