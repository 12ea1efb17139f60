"""``block_qat``: each block nearer to its original's output, and a start for training from end to end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json
from edgepress.runtime.text.tokenizer import Tokenizer

pytestmark = pytest.mark.chain


LEARN: dict[str, Any] = {"pass": "block_qat", "epochs": 8, "learning_rate": 0.05, "precision": "float32"}


def compressed(model: Path, folder: Path, text: Path, *passes: dict[str, Any], samples: int = 512) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "blocks", "passes": list(passes)}))
    options: dict[str, Any] = {"calibration": str(text), "samples": samples, "length": 32}
    return compress_model(str(model), recipe=str(recipe), output=folder / "o", **options)


def distance(model: Path, other: Path, text: Path) -> float:
    ids = torch.tensor(Tokenizer.open(model).encode(text.read_text())[:640]).view(-1, 32)
    with torch.no_grad():
        one, two = (load_model(path)(ids, use_cache=False).logits.log_softmax(-1) for path in (model, other))
    return float((one.exp() * (one - two)).sum(-1).mean())


@pytest.fixture(scope="module")
def rounded(pico_llama: Path, pico_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To the nearest of two bits."""
    folder = tmp_path_factory.mktemp("blocks") / "rounded"
    return compressed(pico_llama, folder, pico_text, {"pass": "rtn", "scheme": "W2A16-g32"})


@pytest.fixture(scope="module")
def learned(pico_llama: Path, pico_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In two bits that learned from many samples."""
    folder = tmp_path_factory.mktemp("blocks") / "learned"
    return compressed(pico_llama, folder, pico_text, {**LEARN, "scheme": "W2A16-g32"})


@pytest.mark.parametrize(
    "scheme",
    ["W2A16-g32", *(pytest.param(name, marks=pytest.mark.slow) for name in ("W3A16_ASYM-g32", "W8A8"))],
)
def test_it_is_nearer_than_what_it_began_with(
    pico_llama: Path, pico_text: Path, tmp_path: Path, request: pytest.FixtureRequest, scheme: str
) -> None:
    held = scheme == "W2A16-g32"  # to a distance: that takes many samples
    if held:
        path = request.getfixturevalue("learned")
    else:
        path = compressed(pico_llama, tmp_path, pico_text, {**LEARN, "scheme": scheme}, samples=64)
    source = WeightSource.open(path)
    assert {one.name for one in source.schemes.values()} == {scheme}
    assert read_json(path / "edgepress.json")["steps"][0]["statuses"] == {"ok": 21}
    if held:
        plain = request.getfixturevalue("rounded")
        # Over six draws of the weights the ratio is 0.51, with a standard deviation of 0.05.
        assert distance(pico_llama, path, pico_text) < 0.8 * distance(pico_llama, plain, pico_text)


def test_twice_to_the_same_bytes(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    step = {**LEARN, "scheme": "W2A16-g32"}
    once, again = (compressed(pico_llama, tmp_path / name, pico_text, step, samples=64) for name in "ab")
    assert hash_tree(once) == hash_tree(again)


def test_it_goes_on_from_codes_keeps_zeros_and_is_trained_to_the_end(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    prune = {"pass": "magnitude", "sparsity": 0.5}
    first = {"pass": "gptq", "scheme": "W3A16-g32"}
    learn = {**LEARN, "scheme": "W3A16-g32", "requantize": True}
    last = {"pass": "qat", "batch_tokens": 64, "piece_tokens": 64, "tokens": 2048, "start": "codes"}
    path = compressed(pico_llama, tmp_path, pico_text, prune, first, learn, last, samples=64)
    source = WeightSource.open(path)
    for linear in source.anatomy.linears():
        tensor = source.linear(linear.name)
        assert isinstance(tensor, QTensor) and float((tensor.codes == 0).float().mean()) >= 0.49


def test_encoders_have_it_too(make_encoder: Callable[..., Path], pico_text: Path, tmp_path: Path) -> None:
    model = make_encoder(tmp_path / "m")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({"name": "b", "passes": [{**LEARN, "scheme": "W3A16-g32"}]}))
    options: dict[str, Any] = {"calibration": str(pico_text), "samples": 24, "length": 32}
    path = compress_model(str(model), recipe=str(recipe), output=tmp_path / "o", **options)
    assert set(read_json(path / "edgepress.json")["steps"][0]["statuses"]) == {"ok"}


def test_what_an_earlier_stage_quantized_is_told(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    """Other samples are another stage, whose original is quantized: there is nothing to come nearer to."""
    first, learn = {"pass": "gptq", "scheme": "W3A16-g32", "samples": 8}, {**LEARN, "scheme": "W3A16-g32"}
    path = compressed(pico_llama, tmp_path, pico_text, first, {**learn, "requantize": True})
    assert read_json(path / "edgepress.json")["steps"][1]["statuses"] == {"fallback-start": 21}
    rounded = compressed(pico_llama, tmp_path / "b", pico_text, first)
    before, after = WeightSource.open(rounded), WeightSource.open(path)
    for linear in before.anatomy.linears():
        one, two = before.linear(linear.name), after.linear(linear.name)
        assert isinstance(one, QTensor) and isinstance(two, QTensor)
        assert torch.equal(one.codes, two.codes) and torch.equal(one.scale, two.scale)


def test_errors_count_as_the_model_minds_them(
    pico_llama: Path, pico_text: Path, tmp_path: Path, rounded: Path, learned: Path
) -> None:
    step = {**LEARN, "scheme": "W2A16-g32", "distance": "fisher"}
    weighted = compressed(pico_llama, tmp_path, pico_text, step)
    assert hash_tree(weighted) != hash_tree(learned)
    # Over six draws of the weights the ratio is 0.52, with a standard deviation of 0.05.
    assert distance(pico_llama, weighted, pico_text) < 0.8 * distance(pico_llama, rounded, pico_text)
