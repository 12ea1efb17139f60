"""Every pass that prunes single weights: shares, patterns, and zeros that survive what follows."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.errors import ShapeError

pytestmark = pytest.mark.chain


PASSES = ["magnitude", "wanda", "sparsegpt", "alps"]
QUANTIZERS = [
    "{pass: rtn, scheme: W4A16-g32}",
    "{pass: w8a8}",
    "{pass: gptq, scheme: W3A16_ASYM-g16}",
    "{pass: hqq, scheme: W2A16_ASYM-g32}",
]


def compressed(model: Path, text: Path, folder: Path, *passes: str) -> WeightSource:
    recipe = folder / "r.yaml"
    recipe.write_text("passes:\n" + "".join(f"  - {line}\n" for line in passes))
    out = compress_model(
        str(model), recipe=str(recipe), output=folder / "o", calibration=str(text), samples=8, length=32
    )
    return WeightSource.open(out)


@pytest.mark.parametrize("name", PASSES)
def test_shares_by_layer(name: str, pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    line = f"{{pass: {name}, sparsity: 0.5, per_layer: {{v: 0.25, '*.0.mlp.*': 0.75}}, ignore: [o]}}"
    source = compressed(pico_llama, pico_text, tmp_path, line)
    assert source.schemes == {} and "quantization_config" not in source.reader.config
    for linear in source.anatomy.linears():
        share = {"v": 0.25, "o": 0.0}.get(linear.role, 0.75 if ".0.mlp." in linear.name else 0.5)
        zeros = float((source.dense(linear.name) == 0).float().mean())
        assert zeros == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4"])
def test_patterns(
    name: str, pattern: str, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m", num_hidden_layers=1)
    source = compressed(model, pico_text, tmp_path, f"{{pass: {name}, pattern: '{pattern}'}}")
    kept, size = map(int, pattern.split(":"))
    for linear in source.anatomy.linears():
        groups = (source.dense(linear.name) != 0).view(-1, size).sum(1)
        assert bool((groups == kept).all())
    (note,) = source.manifest["notes"]
    assert ("to_sparse_semi_structured" in note) == (pattern == "2:4")


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("second", QUANTIZERS)
def test_zeros_survive_quantization(
    name: str, second: str, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m", num_hidden_layers=1)
    source = compressed(model, pico_text, tmp_path, f"{{pass: {name}, pattern: '2:4'}}", second)
    for linear in source.anatomy.linears():
        weight = source.linear(linear.name)
        assert isinstance(weight, QTensor)
        groups = (weight.dequantize() != 0).view(-1, 4).sum(1)
        assert int(groups.max()) == 2


def test_pruning_twice_adds_up(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    source = compressed(
        pico_llama, pico_text, tmp_path, "{pass: magnitude, sparsity: 0.3}", "{pass: wanda, sparsity: 0.5}"
    )
    for linear in source.anatomy.linears():
        weight = source.dense(linear.name)
        assert float((weight == 0).float().mean()) <= 0.6
        assert bool(((weight == 0).sum(1) >= linear.in_features // 2).all())


def test_a_pattern_that_does_not_divide_is_refused_before_any_work(pico_llama: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: magnitude, pattern: '2:5'}]\n")
    with pytest.raises(ShapeError, match="groups of 5 inputs do not divide") as caught:
        plan_model(str(pico_llama), recipe=str(recipe))
    assert "ignore" in caught.value.fix


@pytest.mark.parametrize("name", ["sparsegpt", "alps"])
def test_inputs_collected_again_and_corrected(
    name: str, pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    """Each option changes what is left, and none changes how much."""
    found = []
    for number, options in enumerate(["", ", sequential: true", ", sequential: true, correction: 1"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = compressed(pico_llama, pico_text, folder, f"{{pass: {name}, sparsity: 0.5{options}}}")
        found.append([source.dense(linear.name) for linear in source.anatomy.linears()])
    for weights in zip(*found, strict=True):
        assert all(int((weight == 0).sum()) == weights[0].numel() // 2 for weight in weights)
    for one, other in ((0, 1), (1, 2)):
        assert not all(torch.equal(a, b) for a, b in zip(found[one], found[other], strict=True))


def test_encoders_too(pico_bert: Path, pico_text: Path, tmp_path: Path) -> None:
    source = compressed(pico_bert, pico_text, tmp_path, "{pass: sparsegpt, sparsity: 0.5}")
    for linear in source.anatomy.linears():
        assert float((source.dense(linear.name) == 0).float().mean()) == pytest.approx(0.5, abs=1e-3)
        assert bool(torch.isfinite(source.dense(linear.name)).all())
