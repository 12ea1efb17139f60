"""Two encoders whose vectors are compared (CLIP, SigLIP), cut in two: each against the whole model in
transformers, in batches, in every scheme, pruned; and their similarities.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.benchmarks.speed.work.timed_work import Embedding
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.image_processor import require_preprocessing
from edgepress.compress.model.models import resolve
from edgepress.compress.model.torch_model import load_model, tower_vectors
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError, InputError, ShapeError
from edgepress.export.api import export_bundle
from edgepress.export.graph.forms.providers import CPU, OWN, ProviderForm
from edgepress.files.storage import read_json, write_json
from edgepress.runtime.api import EmbeddingModel, open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.image_encoder import ImageModel
from edgepress.runtime.images.prepared import read_images

from .exact import exact_session

pytestmark = pytest.mark.chain

TOLERANCE = 5e-5
TEXTS = [
    "the river ran under stone bridges",
    "coins",
    "boats drift slowly toward the harbour where engineers measured tides and currents",
]
IDS = np.random.default_rng(5).integers(4, 100, (3, 40), dtype=np.int64)
PIXELS = np.random.default_rng(5).normal(0, 1, (3, 3, 32, 32)).astype(np.float32)


@dataclass(frozen=True)
class Pair:
    """A model of two encoders with some settings of that of texts."""

    family: str
    name: str = "as it is"
    text: dict[str, Any] = field(default_factory=dict)


# The ids of an older CLIP's config were wrong: its end token is the largest id.
PAIRS = [Pair("clip"), Pair("clip", "old ids", {"eos_token_id": 2, "bos_token_id": 0}), Pair("siglip")]


def label(pair: Pair) -> str:
    return f"{pair.family} {pair.name}"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Towers are cut out in a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def made(make_pair: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Pair], Path]:
    """The checkpoint of both, made once."""
    root, known = tmp_path_factory.mktemp("pairs"), dict[str, Path]()

    def once(pair: Pair) -> Path:
        if label(pair) not in known:
            known[label(pair)] = make_pair(root / str(len(known)), pair.family, **pair.text)
        return known[label(pair)]

    return once


@torch.no_grad()
def in_transformers(
    both: Path, images: list[Path], texts: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of images and texts as the whole model has them, and its logits without scale and bias."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(both).eval(), AutoTokenizer.from_pretrained(both)
    pixels = torch.from_numpy(read_images(images, require_preprocessing(both)))
    filled = model.config.model_type == "siglip"
    padding: dict[str, Any] = {"padding": "max_length", "max_length": 40} if filled else {"padding": True}
    fed = dict(tokenizer(texts, return_tensors="pt", **padding))
    fed = {name: fed[name] for name in (["input_ids"] if filled else ["input_ids", "attention_mask"])}
    of_images = model.get_image_features(pixel_values=pixels).pooler_output
    of_texts = model.get_text_features(**fed).pooler_output
    logits = model(pixel_values=pixels, **fed).logits_per_text.T
    bias = getattr(model, "logit_bias", torch.zeros(()))
    units = (torch.nn.functional.normalize(one, dim=-1).numpy() for one in (of_images, of_texts))
    return (*units, ((logits - bias) / model.logit_scale.exp()).numpy())


@pytest.mark.parametrize("pair", PAIRS, ids=label)
@pytest.mark.parametrize("operators", ["standard", "edgepress"])
def test_vectors_and_similarities_are_those_of_the_whole_model(
    pair: Pair, operators: str, made: Callable[[Pair], Path], pico_images: list[Path], tmp_path: Path
) -> None:
    both = made(pair)
    bundles = {
        tower: export_bundle(f"{both}:{tower}", output=tmp_path / tower, operators=operators)
        for tower in ("image", "text")
    }
    shows, reads = (open_bundle(bundle, threads=1) for bundle in bundles.values())
    assert isinstance(shows, ImageModel) and isinstance(reads, EmbeddingModel)
    images, texts, similarity = in_transformers(both, pico_images, TEXTS)
    mine = shows.encode(pico_images, batch_size=5)
    assert np.abs(mine - images).max() < TOLERANCE
    assert np.abs(reads.encode(TEXTS) - texts).max() < TOLERANCE
    one_by_one = np.concatenate([reads.encode([text]) for text in TEXTS])
    assert np.abs(one_by_one - texts).max() < TOLERANCE
    assert np.abs(mine @ reads.encode(TEXTS).T - similarity).max() < TOLERANCE
    files = {path.name for path in bundles["image"].iterdir()}
    assert "preprocessor_config.json" in files and "tokenizer.json" not in files
    assert "preprocessor_config.json" not in {path.name for path in bundles["text"].iterdir()}


@pytest.mark.parametrize("tower", ["image", "text"])
def test_groups_that_do_not_divide_are_refused_before_anything_is_cut_out(
    tower: str, made: Callable[[Pair], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ShapeError, match="group size 128 does not divide"):
        plan_model(f"{made(PAIRS[0])}:{tower}", scheme="W4A16-g128")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("pair", [PAIRS[0], PAIRS[2]], ids=label)
@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("scheme", ["W8A8", "W4A16-g32", "W3A16-g32"])
@pytest.mark.parametrize("form", [CPU, OWN], ids=["standard", "own"])
def test_in_every_scheme(
    pair: Pair,
    tower: str,
    scheme: str,
    form: ProviderForm,
    made: Callable[[Pair], Path],
    export_graph: Any,
) -> None:
    exported = export_graph(resolve(f"{made(pair)}:{tower}").path, scheme, form=form)
    fed = {"pixel_values": PIXELS} if tower == "image" else {"input_ids": IDS}
    with torch.no_grad():
        model = exported.source.model(activations=False)
        output = model(**{name: torch.from_numpy(value) for name, value in fed.items()})
    names = ["last_hidden_state", "sentence_embedding"]
    with exact_session(exported.path) as session:
        inputs = {node.name for node in session.get_inputs()}
        fed |= {"attention_mask": np.ones_like(IDS)} if "attention_mask" in inputs else {}
        states, vectors = session.run(names, fed)
    assert np.abs(states - output.last_hidden_state.numpy()).max() < TOLERANCE
    assert np.abs(vectors - tower_vectors(output).numpy()).max() < TOLERANCE


RECIPES = {
    "awq": "[{pass: awq, scheme: W4A16-g16}]",
    "narrow": "[{pass: narrow, keep: 0.7}, {pass: gptq, scheme: W4A16-g16}]",
    "distill": "[{pass: layers, keep: 0.5}, {pass: distill, training: {epochs: 1}}]",
}


# Each recipe on one tower of one pair and the other of the other; what is left is slow.
@pytest.mark.parametrize(
    ("recipe", "pair", "tower"),
    [
        pytest.param(
            recipe,
            pair,
            tower,
            marks=() if (place + number + (tower == "text")) % 2 == 0 else pytest.mark.slow,
            id=f"{tower}-{label(pair)}-{recipe}",
        )
        for tower in ("image", "text")
        for number, pair in enumerate((PAIRS[0], PAIRS[2]))
        for place, recipe in enumerate(RECIPES)
    ],
)
def test_passes_end_in_a_proven_bundle(
    recipe: str,
    pair: Pair,
    tower: str,
    made: Callable[[Pair], Path],
    pico_images: list[Path],
    pico_text: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "r.yaml").write_text(f"passes: {RECIPES[recipe]}")
    text = pico_images[0].parent if tower == "image" else pico_text
    options: dict[str, Any] = {"calibration": str(text), "samples": 12, "output": tmp_path / "o"}
    out = compress_model(f"{made(pair)}:{tower}", recipe=str(tmp_path / "r.yaml"), **options)
    manifest = read_json(out / "edgepress.json")
    assert all(0 <= step["damage"]["distance"] < 0.9 for step in manifest["steps"])
    if pair.family == "siglip" and tower == "text":  # padding is read, and so calibrated with
        assert manifest["calibration"]["effective_tokens"] == 12 * 40
    model = open_bundle(export_bundle(out, output=tmp_path / "b", activations="float32"), threads=1)
    rounded, plain = load_model(out), open_bundle(export_bundle(out, output=tmp_path / "c"), threads=1)
    if isinstance(model, ImageModel):
        with torch.no_grad():
            want = tower_vectors(rounded(torch.from_numpy(PIXELS))).numpy()
        assert np.abs(model.answers(PIXELS) - want).max() < TOLERANCE
    else:
        assert isinstance(model, EmbeddingModel) and isinstance(plain, EmbeddingModel)
        assert (model.encode(TEXTS) * plain.encode(TEXTS)).sum(1).min() > 0.98


def test_texts_that_are_filled_up_are_timed_whole(make_tower: Callable[..., Path], tmp_path: Path) -> None:
    bundle = export_bundle(
        make_tower(tmp_path / "m", "SiglipTextModel"), output=tmp_path / "b", validate=False
    )
    with pytest.raises(InputError, match="--prompt-tokens 40"):
        Embedding(length=16).check(Bundle.open(bundle))
    Embedding(length=40).check(Bundle.open(bundle))


@pytest.mark.parametrize(
    "architecture", ["CLIPTextModelWithProjection", "CLIPVisionModel", "CLIPTextModel", "SiglipVisionModel"]
)
def test_a_tower_that_was_saved_by_itself(
    architecture: str, make_tower: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = export_bundle(make_tower(tmp_path / "m", architecture), output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["float"]["max_abs_difference"] < TOLERANCE


def test_what_cannot_be_is_said_with_the_way_out(
    made: Callable[[Pair], Path],
    make_tower: Callable[..., Path],
    pico_bert: Path,
    pico_text: Path,
    tmp_path: Path,
) -> None:
    both, out = made(PAIRS[0]), tmp_path / "o"
    with pytest.raises(CheckpointError, match="MODEL:image"):
        compress_model(str(both), scheme="W8A8", output=out)
    with pytest.raises(CheckpointError, match="not one of two encoders"):
        compress_model(f"{pico_bert}:text", scheme="W8A8", output=out)
    (tmp_path / "r.yaml").write_text("passes: [{pass: vocabulary, size: 60}]")
    options: dict[str, Any] = {
        "recipe": str(tmp_path / "r.yaml"),
        "calibration": str(pico_text),
        "samples": 8,
    }
    with pytest.raises(CheckpointError, match="says a wrong end token"):
        compress_model(f"{made(PAIRS[1])}:text", output=out, **options)
    with pytest.raises(InputError, match="no file or directory"):
        compress_model(f"{tmp_path}/absent:image", scheme="W8A8", output=out)
    tower = make_tower(tmp_path / "m", "CLIPVisionModel")
    config = read_json(tower / "config.json")
    write_json(tower / "config.json", config | {"architectures": ["CLIPForImageClassification"]})
    with pytest.raises(CheckpointError, match="another head would be left out"):
        WeightSource.open(tower)
    write_json(tower / "config.json", config | {"architectures": ["CLIPVisionModelWithProjection"]})
    with pytest.raises(CheckpointError, match=r"no tensor 'visual_projection\.weight'"):
        WeightSource.open(tower)
