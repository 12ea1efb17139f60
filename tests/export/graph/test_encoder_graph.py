"""Encoder graphs against torch: families, schemes, padding, pooling."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.model.pooling import Pooling
from edgepress.errors import CheckpointError
from edgepress.export.api import export_bundle
from edgepress.export.graph.forms.providers import CPU, OWN, ProviderForm
from edgepress.export.proof.streamed_stacks import hidden_states
from edgepress.runtime.session.session import open_session

from ..exact import exact_session

LENGTHS = (33, 20, 1)
TOLERANCE = 2e-5


def batch(pad: int) -> dict[str, Any]:
    ids = np.random.default_rng(2).integers(5, 100, (3, 33), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
        ids[row, length:] = pad
    return {"input_ids": ids, "attention_mask": mask}


def run(session: Any, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    inputs = {node.name for node in session.get_inputs()}
    types = {"token_type_ids": np.zeros_like(feeds["input_ids"])} if "token_type_ids" in inputs else {}
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, {**feeds, **types}), strict=True))


@pytest.mark.chain
@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("scheme", [None, "W4A16_ASYM-g32", "W8A8"])
@pytest.mark.parametrize(
    ("form", "pooling"),
    [
        (CPU, None),
        (CPU, Pooling("mean", True, None)),
        (CPU, Pooling("cls", False, None)),
        (OWN, Pooling("mean", True, None)),
        (OWN, Pooling("cls", False, None)),
    ],
)
def test_families(
    model_type: str,
    scheme: str | None,
    form: ProviderForm,
    pooling: Pooling | None,
    make_encoder: Callable[..., Path],
    export_graph: Any,
    tmp_path: Path,
) -> None:
    exported = export_graph(
        make_encoder(tmp_path / "model", model_type), scheme, scheme and "W8A16-g32", pooling, form=form
    )
    feeds = batch(pad=0)
    real = feeds["attention_mask"].astype(bool)
    with exact_session(exported.path) as session:
        found = run(session, feeds)
    hidden = hidden_states(exported.source.model(activations=False), feeds)
    assert np.abs(found["last_hidden_state"][real] - hidden.numpy()[real]).max() < TOLERANCE
    assert ("sentence_embedding" in found) is (pooling is not None)
    if pooling is not None:
        want = pooling.apply(hidden, torch.from_numpy(feeds["attention_mask"])).numpy()
        np.testing.assert_allclose(found["sentence_embedding"], want, atol=TOLERANCE)
    shipped = run(open_session(exported.path, threads=1), feeds)["last_hidden_state"]
    rounded = hidden_states(exported.source.model(activations=True), feeds).numpy()
    # 8-bit inputs err by 0.7 % (a step of 3 σ / 127, uniform) in each of 8 linears one after another: 2 % of
    # unit variance, of 3,500 values 4 times that at most, in two roundings whose ties fall as they like.
    assert np.abs(shipped[real] - rounded[real]).max() < 0.2


@pytest.mark.parametrize("form", [CPU, OWN])
def test_padding_changes_nothing(form: ProviderForm, pico_bert: Path, export_graph: Any) -> None:
    exported = export_graph(pico_bert, pooling=Pooling("mean", True, None), form=form)
    session, feeds = open_session(exported.path, threads=1), batch(pad=0)
    together = run(session, feeds)["sentence_embedding"]
    for row, length in enumerate(LENGTHS):
        alone = run(session, {name: value[row : row + 1, :length] for name, value in feeds.items()})
        np.testing.assert_allclose(together[row], alone["sentence_embedding"][0], atol=1e-5)


@pytest.mark.chain
def test_in_our_own_operators_a_text_has_the_same_bits_in_every_batch(
    make_encoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    model = make_encoder(tmp_path / "model", "roberta")
    exported = export_graph(model, "W8A8", "W8A16-g32", Pooling("mean", True, None), form=OWN)
    feeds = batch(pad=1)
    together = run(open_session(exported.path, threads=2), feeds)
    states = together["last_hidden_state"]
    assert not states[feeds["attention_mask"] == 0].any()
    for row, length in enumerate(LENGTHS):
        alone = run(
            open_session(exported.path, threads=1),
            {name: value[row : row + 1, :length] for name, value in feeds.items()},
        )
        assert np.array_equal(together["sentence_embedding"][row], alone["sentence_embedding"][0])
        assert np.array_equal(states[row, :length], alone["last_hidden_state"][0])


@pytest.mark.parametrize("form", [CPU, OWN])
def test_masks_with_holes_and_rows_without_tokens(
    form: ProviderForm, pico_bert: Path, export_graph: Any
) -> None:
    exported = export_graph(pico_bert, pooling=Pooling("mean", True, None), form=form)
    feeds = batch(pad=0)
    feeds["attention_mask"] = np.random.default_rng(4).integers(0, 2, (3, 33))
    feeds["attention_mask"][2] = 0
    found = run(open_session(exported.path, threads=1), feeds)
    hidden = hidden_states(exported.source.model(activations=False), feeds).numpy()
    real = feeds["attention_mask"].astype(bool)
    assert np.abs(found["last_hidden_state"][real] - hidden[real]).max() < TOLERANCE
    assert np.array_equal(found["sentence_embedding"][2], np.zeros_like(found["sentence_embedding"][2]))


@pytest.mark.chain
@pytest.mark.parametrize("form", [CPU, OWN])
def test_token_types_are_an_input_where_there_are_several(
    form: ProviderForm, make_encoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    several = export_graph(make_encoder(tmp_path / "several"), form=form)
    assert several.built.inputs == ("input_ids", "attention_mask", "token_type_ids")
    feeds = batch(pad=0)
    types = (np.arange(33) % 2)[None].repeat(3, 0)
    model = several.source.model(activations=False)
    want = hidden_states(model, {**feeds, "token_type_ids": types}).numpy()
    found = open_session(several.path, threads=1).run(
        ["last_hidden_state"], {**feeds, "token_type_ids": types}
    )[0]
    assert np.abs(found[0] - want[0]).max() < TOLERANCE
    single = export_graph(make_encoder(tmp_path / "single", "roberta", type_vocab_size=1), form=form)
    assert single.built.inputs == ("input_ids", "attention_mask")


def test_heads_are_never_left_out(make_encoder: Callable[..., Path], tmp_path: Path) -> None:
    path = make_encoder(tmp_path / "model", labels=("bad", "good"))
    config = path / "config.json"
    config.write_text(config.read_text().replace("BertForSequenceClassification", "BertForQuestionAnswering"))
    with pytest.raises(CheckpointError, match=r"BertForQuestionAnswering.*left out") as caught:
        export_bundle(path, output=tmp_path / "bundle")
    assert "AutoModel" in str(caught.value)
    assert not (tmp_path / "bundle").exists()
