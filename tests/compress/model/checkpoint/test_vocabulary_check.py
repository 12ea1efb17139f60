"""Tokenizer, embedding and head that disagree are refused before any work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.checkpoint.vocabulary_check import check_vocabulary
from edgepress.compress.model.family import anatomy_of
from edgepress.errors import CheckpointError
from safetensors.torch import load_file, save_file


def check(folder: Path) -> None:
    reader = CheckpointReader.open(folder)
    check_vocabulary(reader, anatomy_of(reader.config, reader.shapes))


def test_matching_and_padded_vocabularies_pass(
    pico_llama: Path, pico_bert: Path, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    check(pico_llama)
    check(pico_bert)
    check(make_decoder(tmp_path / "padded", vocab_size=384))


def _vocabulary(content: Any) -> None:
    content["model"]["vocab"]["beyond"] = 320


def _added(content: Any) -> None:
    content["added_tokens"].append({"id": 4000, "content": "<|beyond|>"})


def _unigram(content: Any) -> None:
    content["model"] = {"type": "Unigram", "vocab": [[str(index), -1.0] for index in range(321)]}


def _negative(content: Any) -> None:
    content["model"]["vocab"]["odd"] = -1


def _no_vocabulary(content: Any) -> None:
    content["model"] = {"type": "BPE"}


def _odd_added(content: Any) -> None:
    content["added_tokens"] = 3


def _set(**settings: Any) -> Callable[[Any], None]:
    return lambda content: content.update(settings)


MISMATCHES = [
    ("tokenizer.json", _vocabulary, "'beyond' the id 320, the embedding has 320 rows"),
    ("tokenizer.json", _added, "'<|beyond|>' the id 4000"),
    ("tokenizer.json", _unigram, "the id 320"),
    ("tokenizer.json", _negative, "id -1"),
    ("tokenizer.json", _no_vocabulary, "no vocabulary"),
    ("tokenizer.json", _odd_added, "added_tokens"),
    ("config.json", _set(bos_token_id=320), "bos_token_id to 320"),
    ("config.json", _set(eos_token_id=[2, 900]), "eos_token_id to 900"),
    ("config.json", _set(pad_token_id="0"), "pad_token_id to '0'"),
    ("generation_config.json", _set(eos_token_id=-1), "eos_token_id to -1"),
]


@pytest.mark.parametrize(("file", "change", "message"), MISMATCHES)
def test_mismatches_are_named(
    file: str, change: Callable[[Any], None], message: str, pico_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(pico_llama, tmp_path / "model")
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as caught:
        check(folder)
    assert file in caught.value.what and message in caught.value.what


def test_no_padding_token_of_early_conversions(pico_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pico_llama, tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"pad_token_id": -1}))
    check(folder)


def test_a_head_that_is_not_the_embedding_it_is_tied_to(pico_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pico_llama, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors")
    check(folder)
    head[3, 4] += torch.tensor(1.0)
    save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model"):
        check(folder)
