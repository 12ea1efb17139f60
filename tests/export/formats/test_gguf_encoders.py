"""GGUF of encoders and of encoder–decoders of text: what llama.cpp reads of them, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.benchmarks.lab.interop.families import FAMILIES, TOKENIZERS
from edgepress.benchmarks.lab.same_bytes import pico_families as pico
from edgepress.benchmarks.lab.same_bytes.pico_models import save_pico
from edgepress.compress.api import compress_model
from edgepress.errors import InputError, ShapeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json, write_json
from gguf import GGUFReader
from safetensors.numpy import load_file

ROBERTA = pico.ENCODER | {"pad_token_id": 1}
UNTIED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def saved(path: Path, family: str, changes: dict[str, Any], **form: Any) -> Path:
    """A pico model with the tokenizer that its family is published with."""
    pooling = "labels" not in form and TOKENIZERS.get(family) not in (None, "unigram_t5")
    save_pico(path, family, changes, **{"tokenizer": TOKENIZERS.get(family), "pooling": pooling} | form)
    return path


def written(path: Path, out: Path) -> GGUFReader:
    """The GGUF file of a checkpoint; every tensor of it is held against the checkpoint's."""
    (file,) = export_bundle(str(path), format="gguf", output=out).glob("*.gguf")
    return GGUFReader(file)


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "name", "tokenizer", "settings"),
    [
        ("bert", "bert", "bert", {"pooling_type": 1, "context_length": 130}),
        ("roberta", "bert", "gpt2", {"context_length": 512}),
        ("xlm-roberta", "bert", "t5", {"context_length": 512}),
        ("distilbert", "bert", "bert", {"attention.layer_norm_epsilon": np.float32(1e-12)}),
        ("electra", "bert", "bert", {"block_count": 2}),
        (
            *("modernbert", "modern-bert", "gpt2"),
            {"attention.sliding_window": 24, "rope.freq_base": 160_000.0, "rope.freq_base_swa": 10_000.0},
        ),
        ("eurobert", "eurobert", "gpt2", {"attention.head_count_kv": 2}),
        ("nomic_bert", "nomic-bert", "bert", {"rope.freq_base": 1000.0}),
        (
            *("t5", "t5", "t5"),
            {
                "block_count": 3,
                "decoder_block_count": 2,
                "decoder_start_token_id": 0,
                "attention.relative_buckets_count": 32,
            },
        ),
        ("mt5", "t5", "t5", {"attention.key_length": 8}),
    ],
)
def test_a_family_has_llama_cpp_s_name_and_its_settings(
    tmp_path: Path, family: str, name: str, tokenizer: str, settings: dict[str, Any]
) -> None:
    model = saved(tmp_path / "m", family, FAMILIES[f"{family} F32"][1])
    fields = written(model, tmp_path / "g").fields
    assert fields["general.architecture"].contents() == name
    assert fields["tokenizer.ggml.model"].contents() == tokenizer
    found = {key: fields[f"{name}.{key}"].contents() for key in settings}
    assert found == pytest.approx(settings)
    if name != "t5":
        assert fields[f"{name}.attention.causal"].contents() is False


@pytest.mark.chain
def test_positions_begin_where_the_first_token_s_is(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", "xlm-roberta", ROBERTA)
    (table,) = (one for one in written(model, tmp_path / "g").tensors if one.name == "position_embd.weight")
    stored = load_file(model / "model.safetensors")["embeddings.position_embeddings.weight"]
    np.testing.assert_array_equal(table.data, stored[2:])


@pytest.mark.chain
def test_logits_that_are_scaled_are_so_by_the_last_norm(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", "t5", pico.T5 | {"tie_word_embeddings": True})
    tensors = {one.name: one.data for one in written(model, tmp_path / "g").tensors}
    stored = load_file(model / "model.safetensors")
    scaled = stored["decoder.final_layer_norm.weight"] * np.float32(32**-0.5)
    np.testing.assert_array_equal(tensors["dec.output_norm.weight"], scaled)
    np.testing.assert_array_equal(
        tensors["enc.output_norm.weight"], stored["encoder.final_layer_norm.weight"]
    )
    assert "output.weight" not in tensors


@pytest.mark.chain
def test_q_k_and_v_are_one_tensor_with_their_codes(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", "nomic_bert", pico.ENCODER)
    checkpoint = compress_model(str(model), scheme="Q4_0", output=tmp_path / "o")
    (joined,) = (
        one for one in written(checkpoint, tmp_path / "g").tensors if one.name == "blk.0.attn_qkv.weight"
    )
    assert joined.tensor_type.name == "Q4_0"
    assert list(joined.shape) == [64, 192]


@pytest.mark.chain
def test_q_k_and_v_of_several_types_are_refused(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", "nomic_bert", pico.ENCODER)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "passes:\n- {pass: rtn, scheme: Q4_0, ignore: ['*q_proj']}\n"
        "- {pass: rtn, scheme: Q8_0, targets: ['*q_proj']}\n",
        encoding="utf-8",
    )
    checkpoint = compress_model(str(model), recipe=str(recipe), output=tmp_path / "o")
    with pytest.raises(ShapeError, match="is one tensor of q, k and v in GGUF"):
        written(checkpoint, tmp_path / "g")


@pytest.mark.chain
def test_a_reranker_without_token_types_has_its_label(tmp_path: Path) -> None:
    changes = ROBERTA | {"type_vocab_size": 1}
    model = saved(tmp_path / "m", "xlm-roberta", changes, labels=True)
    found = written(model, tmp_path / "g")
    assert found.fields["bert.pooling_type"].contents() == 4
    labels = read_json(model / "config.json")["id2label"]
    assert found.fields["bert.classifier.output_labels"].contents() == list(labels.values())
    names = {one.name for one in found.tensors}
    assert {"cls.weight", "cls.bias", "cls.output.weight", "cls.output.bias"} <= names


RANKS = {"classifier_pooling": "mean", "num_hidden_layers": 4}


@pytest.mark.chain
def test_a_modernbert_that_labels_texts_has_the_norm_of_its_head(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", "modernbert", pico.MODERNBERT | RANKS, labels=True)
    found = written(model, tmp_path / "g")
    assert found.fields["modern-bert.pooling_type"].contents() == 4
    stored, tensors = load_file(model / "model.safetensors"), {one.name: one.data for one in found.tensors}
    for name, own in (("cls.weight", "head.dense"), ("cls.norm.weight", "head.norm")):
        np.testing.assert_array_equal(tensors[name], stored[f"{own}.weight"])
    np.testing.assert_array_equal(tensors["cls.output.weight"], stored["classifier.weight"])


@pytest.mark.chain
def test_a_tokenizer_that_keeps_capitals_says_so(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", "bert", pico.ENCODER)
    content = read_json(model / "tokenizer.json")
    content["normalizer"] |= {"lowercase": False, "strip_accents": None}
    write_json(model / "tokenizer.json", content)
    fields = written(model, tmp_path / "g").fields
    assert fields["tokenizer.ggml.normalizer.lowercase"].contents() is False
    assert fields["tokenizer.ggml.normalizer.strip_accents"].contents() is False


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "changes", "form", "feature"),
    [
        ("mpnet", ROBERTA, {}, "(?s)mpnet model cannot be written.*no arithmetic"),
        ("gte", pico.ENCODER, {}, "(?s)gte model cannot be written.*SiLU"),
        ("bert", pico.ENCODER, {"labels": True, "by_token": True}, "does not know labels of tokens"),
        ("distilbert", pico.DISTILBERT, {"labels": True}, "labels by another head"),
        ("modernbert", pico.MODERNBERT, {"labels": True}, "labels of other states than the mean of all"),
        (
            *("modernbert", pico.MODERNBERT | RANKS | {"classifier_activation": "tanh"}, {"labels": True}),
            "another head than a linear, gelu, a norm and a linear",
        ),
        ("modernbert", pico.MODERNBERT | {"norm_bias": True}, {}, "does not know biases of norms"),
        ("electra", pico.ENCODER | {"embedding_size": 32}, {}, "a projection of the embedding"),
        ("bert", pico.ENCODER | {"hidden_act": "relu"}, {}, "an MLP with relu"),
        ("bert", pico.ENCODER, {"tokenizer": "encoder"}, "normalizes text in another way"),
        (
            "modernbert",
            pico.MODERNBERT | {"num_hidden_layers": 4, "layer_types": ["full_attention"] * 4},
            {},
            "the window, or none, of block 1",
        ),
        ("t5", pico.T5 | {"relative_attention_max_distance": 64}, {}, "biases of distances up to 64"),
        ("t5", pico.T5 | {"feed_forward_proj": "gated-silu"}, {}, "an MLP with silu"),
        ("t5", pico.T5, {"tokenizer": "encoder_decoder"}, "is no byte-level BPE, WordPiece or unigram"),
        ("bart", pico.BART, {}, "(?s)bart model cannot be written.*no arithmetic"),
    ],
)
def test_what_llama_cpp_leaves_out_is_refused(
    tmp_path: Path, family: str, changes: dict[str, Any], form: dict[str, Any], feature: str
) -> None:
    model = saved(tmp_path / "m", family, changes, **form)
    with pytest.raises(InputError, match=feature):
        written(model, tmp_path / "g")
    assert not (tmp_path / "g").exists()


@pytest.mark.chain
def test_a_reranker_whose_token_types_tell_texts_apart_is_refused(tmp_path: Path) -> None:
    model = saved(tmp_path / "m", "bert", pico.ENCODER, labels=True)
    config = read_json(model / "config.json")
    from safetensors.numpy import save_file

    tensors = load_file(model / "model.safetensors")
    tensors |= {name: tensors[name][:1].copy() for name in ("classifier.weight", "classifier.bias")}
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    write_json(model / "config.json", config | {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}})
    with pytest.raises(InputError, match="ranks pairs of texts that token types tell apart"):
        written(model, tmp_path / "g")
