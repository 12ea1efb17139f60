"""Decoders that embed sentences, as pico models, against transformers' states pooled by hand: of all lengths,
past a window, padded on either side, in every scheme, and pruned.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.benchmarks.lab.same_bytes.pico_embedders import PROMPTS, save_embedder
from edgepress.compress.api import compress_model
from edgepress.compress.model.pooling import pooling_of
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import CheckpointError, InputError
from edgepress.export.api import export_bundle
from edgepress.export.graph.forms.providers import CPU, OWN, ProviderForm
from edgepress.export.proof.streamed_stacks import hidden_states
from edgepress.files.storage import read_json
from edgepress.runtime.api import open_bundle
from edgepress.runtime.session.session import open_session

from .exact import exact_session

pytestmark = pytest.mark.chain

TOLERANCE = 5e-5
LENGTHS = (150, 40, 5, 1)
IDS = np.random.default_rng(5).integers(3, 300, (4, 150), dtype=np.int64)
FORMS = pytest.mark.parametrize("form", [CPU, OWN], ids=["standard", "own"])
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "mistral": {"sliding_window": 24},
    "llama": {"attention_bias": True, "tie_word_embeddings": False},
    "qwen2": {},
    "gemma": {},
    "gemma3_text": {},
    "granite": {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5},
    "phi3": {"sliding_window": 24},
}
FIRST = ("qwen3", "mistral")
Made = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The checkpoint of a family and a mode of pooling, made once."""
    root, known = tmp_path_factory.mktemp("embedders"), dict[Any, Path]()

    def once(family: str, mode: str = "lasttoken", *, bare: bool = True) -> Path:
        if (family, mode, bare) not in known:
            sizes = {"max_position_embeddings": 160} | FAMILIES[family]
            folder = root / str(len(known))
            known[family, mode, bare] = save_embedder(folder, family, sizes, mode=mode, bare=bare)
        return known[family, mode, bare]

    return once


def batch(*, left: bool) -> dict[str, Any]:
    """Rows of all lengths, padded on one side."""
    ids, mask = np.full((len(LENGTHS), 150), 1, np.int64), np.zeros((len(LENGTHS), 150), np.int64)
    for row, length in enumerate(LENGTHS):
        place = slice(150 - length, None) if left else slice(length)
        ids[row, place], mask[row, place] = IDS[row, :length], 1
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def wanted(checkpoint: Path, mode: str) -> np.ndarray:
    """Of each row alone what transformers' states make: the last, or the mean, of length 1."""
    from transformers import AutoModel

    model, found = AutoModel.from_pretrained(checkpoint).eval(), []
    for row, length in zip(IDS, LENGTHS, strict=True):
        states = model(torch.from_numpy(row[None, :length]), use_cache=False)[0][0]
        vector = states[-1] if mode == "lasttoken" else states.mean(0)
        found.append((vector / vector.norm()).numpy())
    return np.stack(found)


@FORMS
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_token_in_float(family: str, form: ProviderForm, made: Made, export_graph: Any) -> None:
    checkpoint = made(family)
    exported = export_graph(checkpoint, pooling=pooling_of(checkpoint), form=form)
    session, want = open_session(exported.path, threads=1), wanted(checkpoint, "lasttoken")
    for left in (False, True):
        (found,) = session.run(["sentence_embedding"], batch(left=left))
        assert np.abs(found - want).max() < TOLERANCE
    for row, length in enumerate(LENGTHS):
        alone = {"input_ids": IDS[row : row + 1, :length], "attention_mask": np.ones((1, length), np.int64)}
        assert np.abs(session.run(["sentence_embedding"], alone)[0][0] - want[row]).max() < TOLERANCE


@FORMS
@pytest.mark.parametrize("family", FIRST)
def test_the_mean_in_float(family: str, form: ProviderForm, made: Made, export_graph: Any) -> None:
    checkpoint = made(family, "mean_tokens")
    exported = export_graph(checkpoint, pooling=pooling_of(checkpoint), form=form)
    session = open_session(exported.path, threads=1)
    for left in (False, True):
        (found,) = session.run(["sentence_embedding"], batch(left=left))
        assert np.abs(found - wanted(checkpoint, "mean_tokens")).max() < TOLERANCE


@FORMS
@pytest.mark.parametrize("scheme", ["W8A8", "W4A16-g32", "W3A16-g32"])
@pytest.mark.parametrize("family", FIRST)
def test_in_every_scheme(family: str, scheme: str, form: ProviderForm, made: Made, export_graph: Any) -> None:
    checkpoint, feeds = made(family), batch(left=True)
    pooling = pooling_of(checkpoint)
    exported = export_graph(checkpoint, scheme, "W8A16-g32", pooling, form=form)
    states = hidden_states(exported.source.model(activations=False), feeds)
    want = pooling.apply(states, torch.from_numpy(feeds["attention_mask"])).numpy()
    with exact_session(exported.path) as session:
        assert np.abs(session.run(["sentence_embedding"], feeds)[0] - want).max() < TOLERANCE


def test_rows_without_tokens_are_zero(made: Made, export_graph: Any) -> None:
    checkpoint, feeds = made("qwen3"), batch(left=False)
    exported = export_graph(checkpoint, pooling=pooling_of(checkpoint))
    feeds["attention_mask"][1] = 0
    (found,) = open_session(exported.path, threads=1).run(["sentence_embedding"], feeds)
    assert not found[1].any() and found[0].any()


def test_an_encoder_with_the_last_token(
    make_encoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    """Our operators for packed tokens do not have it."""
    from edgepress.compress.model.pooling import Pooling

    pooling, feeds = Pooling("last", False, None), batch(left=False)
    feeds["input_ids"] = feeds["input_ids"] % 100 + 5
    model = make_encoder(tmp_path / "model", max_position_embeddings=160)
    for form in (CPU, OWN):
        exported = export_graph(model, pooling=pooling, form=form)
        names, session = ["last_hidden_state", "sentence_embedding"], open_session(exported.path, threads=1)
        types = np.zeros_like(feeds["input_ids"])
        states, vectors = session.run(names, {**feeds, "token_type_ids": types})
        for row, length in enumerate(LENGTHS):
            assert np.array_equal(vectors[row], states[row, length - 1])


RECIPES = {
    "gptq": "[{pass: gptq, scheme: W4A16-g32}]",
    "pruned": "[{pass: layers, keep: 0.7}, {pass: narrow, keep: 0.8}, {pass: rtn, scheme: W4A16-g16}]",
}


@pytest.mark.parametrize(
    ("family", "recipe", "bare"),
    [
        # Half of what there is; each two of the three meet.
        pytest.param(
            *(family, recipe, bare),
            marks=() if (first + second + bare) % 2 else pytest.mark.slow,
            id=f"{family}-{recipe}-{'bare' if bare else 'with its head'}",
        )
        for first, family in enumerate(FIRST)
        for second, recipe in enumerate(RECIPES)
        for bare in (True, False)
    ],
)
def test_the_whole_chain(
    family: str, recipe: str, bare: bool, made: Made, pico_text: Path, tmp_path: Path
) -> None:
    """The bundle gives the checkpoint's vectors of texts, which the tokenizer ends."""
    model = made(family, bare=bare)
    (tmp_path / "r.yaml").write_text(f"passes: {RECIPES[recipe]}")
    options: dict[str, Any] = {"calibration": str(pico_text), "samples": 4, "length": 32}
    out = compress_model(str(model), recipe=str(tmp_path / "r.yaml"), output=tmp_path / "o", **options)
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        assert (out / name).read_bytes() == (model / name).read_bytes()
    assert (
        read_json(out / "config.json")["architectures"] == read_json(model / "config.json")["architectures"]
    )
    bundle = export_bundle(out, output=tmp_path / "b", activations="float32")
    assert read_json(bundle / "manifest.json")["encoder"]["pooling"] == "last"
    texts = ["the river", "merchants counted copper coins and children watched boats drift " * 4, "harbour"]
    assert read_json(bundle / "manifest.json")["encoder"]["prompts"] == PROMPTS
    assert "`--prompt`: query" in (bundle / "README.md").read_text(encoding="utf-8")
    encoder = open_bundle(bundle, threads=1).encoder
    asked = encoder.encode([PROMPTS["query"] + texts[0]])
    assert np.array_equal(encoder.encode(texts[:1], prompt="query"), asked)
    found, theirs = encoder.encode(texts), load_model(out, embedding=True)
    for text, vector in zip(texts, found, strict=True):
        ids = encoder.tokenizer.encode_batch([text], max_length=160)[0]
        assert ids[-1] == encoder.tokenizer.encode_batch([""], max_length=160)[0][-1]
        with torch.no_grad():
            state = theirs(torch.tensor([ids]))[0][0, -1]
        assert np.abs(vector - (state / state.norm()).numpy()).max() < 2e-3


@pytest.mark.parametrize(
    ("family", "changes", "has"),
    [
        ("gemma2", {}, "soft-capped scores"),
        ("smollm3", {"no_rope_layer_interval": 2}, "without a rope"),
        ("gpt2", {"n_inner": 128}, "without a rope"),
        ("olmo2", {}, "order 'behind'"),
    ],
)
def test_what_no_graph_that_embeds_has(
    family: str, changes: dict[str, Any], has: str, tmp_path: Path
) -> None:
    model = save_embedder(tmp_path / "m", family, {"max_position_embeddings": 160, **changes})
    with pytest.raises(CheckpointError, match=has):
        compress_model(str(model), output=tmp_path / "o", scheme="W8A8")
    with pytest.raises(CheckpointError, match=has):
        export_bundle(model, output=tmp_path / "b")


@pytest.mark.parametrize("form", ["gguf", "gptq", "awq"])
def test_formats_of_decoders_are_refused(form: str, made: Made, tmp_path: Path) -> None:
    out = compress_model(str(made("qwen3")), output=tmp_path / "o", scheme="W4A16-g32")
    with pytest.raises(InputError, match="embeds sentences"):
        export_bundle(out, output=tmp_path / "b", format=form)
