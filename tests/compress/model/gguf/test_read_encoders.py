"""GGUF files of encoders: the model that was written, its tokenizer, and how it pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.benchmarks.lab.interop.families import TOKENIZERS
from edgepress.benchmarks.lab.interop.our_answers import WRITTEN
from edgepress.benchmarks.lab.same_bytes import pico_families as pico
from edgepress.benchmarks.lab.same_bytes.pico_models import save_pico
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.gguf.configs import ROWS
from edgepress.compress.model.pooling import pooling_of
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import CheckpointError
from edgepress.export.api import export_bundle
from edgepress.runtime.text.tokenizer import Tokenizer

ROBERTA = pico.ENCODER | {"pad_token_id": 1}
# The family, and that which its file is read as.
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("bert", pico.ENCODER, "bert"),
    ("xlm-roberta", ROBERTA, "bert"),
    ("roberta", ROBERTA, "bert"),
    ("nomic_bert", pico.ENCODER, "nomic_bert"),
]
IDS = torch.arange(5, 85).view(2, 40)


def test_every_encoder_that_is_read_is_here() -> None:
    assert {family for _, _, family in CASES} == {row.family for row in ROWS.values() if row.encodes}


@pytest.mark.chain
@pytest.mark.parametrize(("family", "changes", "read_as"), CASES)
def test_the_encoder_is_the_one_that_was_written(
    tmp_path: Path, family: str, changes: dict[str, Any], read_as: str
) -> None:
    model = tmp_path / "m"
    save_pico(model, family, changes, tokenizer=TOKENIZERS[family], pooling=True)
    (file,) = export_bundle(str(model), format="gguf", output=tmp_path / "g").glob("*.gguf")
    read = materialise(file, tmp_path / "read")
    with torch.no_grad():
        expected, found = load_model(model)(IDS)[0], load_model(read)(IDS)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert pooling_of(read).mode == "mean"
    mine, theirs = Tokenizer.open(read), Tokenizer.open(model)
    for text in WRITTEN:
        assert mine.encode(text) == theirs.encode(text), text
    assert mine.pad_id == theirs.pad_id


@pytest.mark.chain
def test_labels_are_not_read(tmp_path: Path) -> None:
    save_pico(tmp_path / "m", "bert", pico.ENCODER, tokenizer="bert", labels=True)
    (file,) = export_bundle(str(tmp_path / "m"), format="gguf", output=tmp_path / "g").glob("*.gguf")
    with pytest.raises(CheckpointError, match=r"holds cls\.bias, which the model .* has no place for"):
        materialise(file, tmp_path / "read")
