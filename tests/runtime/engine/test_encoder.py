"""Embeddings: order, padding, truncation, and no pooling by guess."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgepress.errors import BundleError, InputError, UnknownName
from edgepress.runtime.api import EmbeddingModel, open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.encoder import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_toys.bundle import TEXTS, edit_manifest, save_encoder_bundle
from runtime_toys.encoder import WIDTH, reference_embedding, section

WORDS = " ".join(TEXTS).split()


@pytest.fixture(scope="module")
def encoder(encoder_bundle: Path) -> Encoder:
    return Encoder.open(Bundle.open(encoder_bundle), threads=1)


def _vocab(encoder: Encoder) -> int:
    return encoder.tokenizer.vocab_size


@pytest.mark.chain
@settings(max_examples=30)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=9),
    batch_size=st.integers(1, 10),
)
def test_vectors_equal_the_reference_in_the_order_of_the_texts(
    encoder: Encoder, texts: list[str], batch_size: int
) -> None:
    found = encoder.encode(texts, batch_size)
    assert found.shape == (len(texts), WIDTH)
    for text, vector in zip(texts, found, strict=True):
        ids = encoder.tokenizer.encode(text, max_length=encoder.max_length)
        assert np.allclose(vector, reference_embedding(ids, _vocab(encoder)), atol=1e-5)


def test_a_prompt_goes_in_front_of_each_text(encoder: Encoder) -> None:
    prompts = {"query": "river ", "document": ""}
    named = replace(encoder.section, prompts=prompts, default_prompt="query")
    asked = Encoder(encoder.session, named, encoder.tokenizer)
    texts = ["stone bridges", "harbour"]
    before = encoder.encode([f"river {text}" for text in texts])
    for found in (asked.encode(texts), asked.encode(texts, prompt="query"), *asked.encode_stream(texts)):
        assert np.array_equal(found, before)
    for none in ("", "document"):
        assert np.array_equal(asked.encode(texts, prompt=none), encoder.encode(texts))
    with pytest.raises(UnknownName, match="unknown prompt 'passage'") as refused:
        asked.encode(texts, prompt="passage")
    assert "document, query" in refused.value.fix
    with pytest.raises(UnknownName) as refused:
        encoder.encode(texts, prompt="query")
    assert "known: none" in refused.value.fix


def test_a_default_prompt_is_one_of_the_prompts(encoder_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder_bundle, tmp_path / "b")
    edit_manifest(tmp_path / "b", encoder=section(prompts={"query": "find: "}, default_prompt="passage"))
    with pytest.raises(BundleError, match="default prompt 'passage' is none of its prompts"):
        Bundle.open(tmp_path / "b")


def test_many_texts_on_several_threads_give_the_same_vectors(encoder: Encoder, encoder_bundle: Path) -> None:
    several = Encoder.open(Bundle.open(encoder_bundle), threads=3)
    texts = [" ".join(WORDS[: 1 + index % 11]) for index in range(60)]
    assert np.allclose(several.encode(texts, 2), encoder.encode(texts), atol=1e-6)


def test_a_stream_gives_the_vectors_of_a_list_in_windows(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepress.runtime.engine.encoder.WINDOW", 4)
    texts = [" ".join(WORDS[: 1 + index % 11]) for index in range(10)]
    taken: list[str] = []
    parts = encoder.encode_stream(taken.append(text) or text for text in texts)
    first = next(parts)
    assert (len(first), taken) == (4, texts[:4])
    rest = list(parts)
    assert [len(part) for part in rest] == [4, 2]
    found = np.concatenate([first, *rest])
    ids = encoder.tokenizer.encode_batch(texts, max_length=encoder.max_length)
    assert np.allclose(found, [reference_embedding(row, _vocab(encoder)) for row in ids], atol=1e-5)
    assert np.array_equal(encoder.encode(texts), found)


def test_long_texts_are_cut_at_max_length(encoder: Encoder) -> None:
    long = "river stone " * 50
    ids = encoder.tokenizer.encode(long, max_length=24)
    assert len(ids) == 24
    assert np.allclose(encoder.encode([long])[0], reference_embedding(ids, _vocab(encoder)), atol=1e-5)


def test_ids_are_taken_as_they_are(encoder: Encoder) -> None:
    rows = [[2, 5, 3], [2, 9, 10, 11, 3]]
    expected = [reference_embedding(row, _vocab(encoder)) for row in rows]
    assert np.allclose(encoder.embed_ids(rows, batch_size=2), expected, atol=1e-5)


@pytest.mark.parametrize("row", [[], [2] * 25])
def test_rows_that_do_not_fit(encoder: Encoder, row: list[int]) -> None:
    with pytest.raises(InputError, match="1 to 24"):
        encoder.embed_ids([row])


def test_a_batch_of_none(encoder: Encoder) -> None:
    with pytest.raises(InputError, match="batch_size"):
        encoder.encode(["river"], batch_size=0)


def test_without_pooling_there_is_no_embedding(tmp_path: Path) -> None:
    save_encoder_bundle(tmp_path, pooled=False)
    encoder = Encoder.open(Bundle.open(tmp_path), threads=1)
    with pytest.raises(BundleError, match="no pooling"):
        encoder.encode(["river"])
    ids = np.array([[2, 5, 3]])
    assert encoder.forward(ids, np.ones_like(ids))["last_hidden_state"].shape == (1, 3, WIDTH)


def test_a_manifest_that_does_not_fit_the_graph(encoder_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder_bundle, tmp_path / "b")
    edit_manifest(folder, encoder=section(inputs=["input_ids"]))
    with pytest.raises(BundleError, match="it takes"):
        Encoder.open(Bundle.open(folder))
    edit_manifest(folder, encoder=section(hidden_size=999))
    with pytest.raises(BundleError, match="999"):
        Encoder.open(Bundle.open(folder)).encode(["river"])


def test_a_tokenizer_of_another_model_is_a_typed_error(encoder_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder_bundle, tmp_path / "b")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["river"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(content))
    edit_manifest(folder)
    encoder = Encoder.open(Bundle.open(folder), threads=1)
    with pytest.raises(BundleError, match="graph failed"):
        encoder.encode(["river"])


def test_the_api_opens_an_embedding_model(encoder_bundle: Path) -> None:
    model = open_bundle(encoder_bundle, threads=1)
    assert isinstance(model, EmbeddingModel)
    assert np.array_equal(model.encode("river"), model.encode(["river"]))
