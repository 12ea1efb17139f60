"""GGUF files of encoders: the model that was written, its tokenizer, and how it pools."""

from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.benchmarks.lab.interop.families import TOKENIZERS
from edgepress.benchmarks.lab.interop.our_answers import WRITTEN
from edgepress.benchmarks.lab.same_bytes import pico_families as pico
from edgepress.benchmarks.lab.same_bytes.pico_models import save_pico
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.generation_tokens import GenerationTokens
from edgepress.compress.model.gguf.configs import config_of
from edgepress.compress.model.gguf.kind_configs import STACKS
from edgepress.compress.model.pooling import pooling_of
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
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
    ("modernbert", pico.MODERNBERT | {"num_hidden_layers": 4}, "modernbert"),
    ("eurobert", pico.EUROBERT, "eurobert"),
]
TRANSLATORS: list[tuple[str, dict[str, Any]]] = [
    ("t5", pico.T5 | {"tie_word_embeddings": True}),
    ("mt5", pico.T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
]
IDS = torch.arange(5, 85).view(2, 40)


def test_every_encoder_that_is_read_is_here() -> None:
    assert {family for _, _, family in CASES} == {row.family for row in STACKS.values() if row.encodes}
    assert {row.family for row in STACKS.values() if row.two_stacks} == {"t5"}


@pytest.mark.chain
@pytest.mark.parametrize(("family", "changes", "read_as"), CASES)
@pytest.mark.usefixtures("tokenizers_made_here")
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
@pytest.mark.parametrize(("family", "changes"), TRANSLATORS)
def test_the_encoder_decoder_is_the_one_that_was_written(
    tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    """Of a T5 whose logits are scaled, the scale is in the last norm of the file."""
    model = tmp_path / "m"
    save_pico(model, family, changes, tokenizer=TOKENIZERS[family])
    (file,) = export_bundle(str(model), format="gguf", output=tmp_path / "g").glob("*.gguf")
    read = materialise(file, tmp_path / "read")
    logits = []
    for path in (model, read):
        with torch.no_grad():
            found = load_model(path)(input_ids=IDS, decoder_input_ids=IDS[:, :7], use_cache=False).logits
        logits.append(found)
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-5, atol=1e-5)
    mine, theirs = (GenerationTokens.of(WeightSource.open(path)) for path in (read, model))
    assert (mine.start(), mine.ids("eos_token_id")) == (theirs.start(), theirs.ids("eos_token_id"))
    for text in WRITTEN:
        assert Tokenizer.open(read).encode(text) == Tokenizer.open(model).encode(text), text


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ({"hidden_act": "silu"}, {"hidden_activation": "silu"}),
        ({"attention.sliding_window_pattern": 2}, {"global_attn_every_n_layers": 2}),
        (
            {"attention.sliding_window_pattern": (False, True)},
            {"layer_types": ["full_attention", "sliding_attention"]},
        ),
    ],
)
def test_what_newer_files_say_of_a_modernbert(stated: dict[str, object], found: dict[str, Any]) -> None:
    sizes = {"embedding_length": 64, "attention.head_count": 4}
    assert found.items() <= config_of(STACKS["modern-bert"], sizes | stated, {}, {}).items()


@pytest.mark.chain
def test_labels_are_not_read(tmp_path: Path) -> None:
    save_pico(tmp_path / "m", "bert", pico.ENCODER, tokenizer="bert", labels=True)
    (file,) = export_bundle(str(tmp_path / "m"), format="gguf", output=tmp_path / "g").glob("*.gguf")
    with pytest.raises(CheckpointError, match=r"holds cls\.bias, which the model .* has no place for"):
        materialise(file, tmp_path / "read")
