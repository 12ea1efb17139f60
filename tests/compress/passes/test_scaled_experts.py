"""AWQ and SmoothQuant of mixtures: each expert by the tokens that come to it, and the routing as it was."""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.fake_quant import quantize_tokens
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.passes.awq import Awq
from edgepress.compress.passes.smoothquant import Smoothquant
from edgepress.compress.pipeline.block import Block
from edgepress.compress.pipeline.statistics import STATISTICS
from edgepress.compress.solve.folding import fold, migrations, powers
from edgepress.compress.solve.links import Link, links
from edgepress.files.storage import read_json
from torch import Tensor

SIX: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SHARED: dict[str, Any] = SIX | {"shared_expert_intermediate_size": 64}
NEEDED = ("gram", "absmax", "sample", "tokens")
SCHEMES = {"awq": "W3A16-g16", "smoothquant": "W8A8"}


def outlying(model: Path) -> Path:
    """``model`` with a few channels of its norms far larger: what these methods are for."""
    from safetensors.torch import load_file, save_file

    path = model / "model.safetensors"
    tensors, generator = load_file(path), torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight"):
            large = torch.rand(tensor.shape, generator=generator) < 0.1
            tensors[name] = torch.where(large, 12 * tensor, tensor)
    save_file(tensors, path, {"format": "pt"})
    return model


def filled(model: Path, index: int = 1, idle: int | None = None) -> tuple[Block, dict[str, Tensor]]:
    """A block with statistics of random inputs, none for the expert ``idle``; and those inputs by linear."""
    source = WeightSource.open(model)
    anatomy = source.anatomy.blocks[index]
    loaded = load_model(model)
    linears: Any = {linear.name: loaded.get_submodule(linear.name) for linear in anatomy.linears()}
    block = Block(anatomy, loaded.get_submodule(anatomy.prefix), linears)
    generator = torch.Generator().manual_seed(3)
    statistics: dict[str, Mapping[str, Tensor]] = {}
    rows: dict[str, Tensor] = {}
    experts = [linear.name for linear in anatomy.expert_linears()]
    for place, group in enumerate(anatomy.inputs()):
        number = experts.index(group[0].name) // 3 if group[0].name in experts else -1
        count = 0 if number == idle and idle is not None else 300 + 20 * place
        wide = group[0].in_features
        size = torch.where(torch.arange(wide) % 11 == 0, 10.0, 1.0)  # of a norm's channels: the same for all
        inputs = torch.randn(count, wide, generator=generator) * size
        found = {name: STATISTICS[name](inputs.shape[1], torch.device("cpu")) for name in NEEDED}
        for statistic in found.values():
            statistic.update(inputs, None)
        values = {name: statistic.value() for name, statistic in found.items()}
        values["sample"] = inputs
        for linear in group:
            statistics[linear.name], rows[linear.name] = values, inputs
    block.statistics = statistics
    return block, rows


def before_the_experts(block: Block) -> Link:
    return next(link for link in links(block.anatomy) if link.gates)


def by_tokens(block: Block, link: Link, rows: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """The weights of the readers of each group above one another, and the rows that they read."""
    for group in block.anatomy.inputs():
        if group[0] in link.readers:
            yield torch.cat([block.weight(one) for one in group]), rows[group[0].name]


def mixture(make_decoder: Callable[..., Path], folder: Path, shared: bool = True) -> Path:
    return make_decoder(
        folder, *(("qwen2_moe",) if shared else ("qwen3_moe",)), **(SHARED if shared else SIX)
    )


@pytest.mark.parametrize("idle", [None, 2])
def test_the_factors_of_awq_are_those_of_a_loop_over_all_tokens(
    make_decoder: Callable[..., Path], tmp_path: Path, idle: int | None
) -> None:
    block, rows = filled(mixture(make_decoder, tmp_path / "m"), idle=idle)
    link, scheme = before_the_experts(block), Scheme.parse("W3A16-g16")
    parts = [part for part in by_tokens(block, link, rows) if len(part[1])]
    assert len(parts) == (7 if idle is None else 6)
    power = torch.cat([inputs for _, inputs in parts]).square().mean(0)
    weights = torch.cat([block.weight(reader) for reader in link.readers])
    losses = {}
    for label, factors in powers(power.sqrt(), weights.square().mean(0).sqrt()):
        wide = torch.exp2((factors / factors.min()).log2().round())
        losses[label] = sum(
            float((inputs @ (quantize(weight * wide, scheme, "mse", inputs.square().mean(0) / wide.square())
                   .dequantize() / wide - weight).T).square().sum())
            for weight, inputs in parts
        )  # fmt: skip
    options = Awq(scheme="W3A16-g16")
    found = options.factors(block, link, list(link.readers))
    assert found is not None and found.ratio < 0.9
    assert torch.equal(found.factors.log2(), found.factors.log2().round())
    # Some of the rows are looked at: the best of all rows is as good as the one found, or nearly.
    assert losses[found.label] <= 1.05 * min(losses.values()) < losses["1"]
    assert found.ratio == pytest.approx(losses[found.label] / losses["1"], rel=0.1)


def test_the_factors_of_smoothquant_are_those_of_a_loop_over_all_tokens(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    block, rows = filled(mixture(make_decoder, tmp_path / "m"))
    link, scheme = before_the_experts(block), Scheme.parse("W8A8")
    parts = list(by_tokens(block, link, rows))
    peaks = torch.cat([inputs for _, inputs in parts]).abs().amax(0)
    largest = torch.cat([weight for weight, _ in parts]).abs().amax(0)
    losses = {}
    for label, factors in migrations(peaks, largest, [n / 10 for n in range(2, 9)]):
        wide = torch.exp2((factors / factors.min()).log2().round())
        losses[label] = sum(
            float((quantize_tokens(x / wide) @ quantize(weight * wide, scheme).dequantize().T - x @ weight.T)
                  .square().sum())
            for weight, x in parts
        )  # fmt: skip
    found = Smoothquant().factors(block, link, list(link.readers))
    assert found is not None and found.ratio < 0.7
    assert losses[found.label] <= 1.05 * min(losses.values())
    assert found.ratio == pytest.approx(losses[found.label] / losses["1"], rel=0.1)


def test_factors_before_a_router_leave_every_bit_of_the_output(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    block, _ = filled(mixture(make_decoder, tmp_path / "m"))
    link, before = before_the_experts(block), copy.deepcopy(block.module)
    states = torch.randn(3, 9, 64, generator=torch.Generator().manual_seed(1))
    factors = link.exact(torch.linspace(0.2, 9, 64))
    fold(block, link, factors)
    for name in ("mlp.gate.weight", "mlp.shared_expert_gate.weight", "mlp.experts.4.up_proj.weight"):
        assert torch.equal(block.module.get_parameter(name), before.get_parameter(name) * factors)
    with torch.no_grad():
        outputs = [
            module.get_submodule("mlp")(module.get_submodule("post_attention_layernorm")(states))
            for module in (before, block.module)
        ]
    assert torch.equal(*(output[0] if isinstance(output, tuple) else output for output in outputs))


@pytest.mark.chain
@pytest.mark.parametrize(
    ("shared", "step"),
    [
        (True, "awq"),
        (False, "smoothquant"),
        pytest.param(False, "awq", marks=pytest.mark.slow),
        pytest.param(True, "smoothquant", marks=pytest.mark.slow),
    ],
)
def test_it_beats_rounding_and_says_what_it_saw(
    shared: bool,
    step: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
    distance: Callable[[Path, Path, Path], float],
) -> None:
    model = outlying(mixture(make_decoder, tmp_path / "m", shared))
    scheme = SCHEMES[step]
    out = run(model, pico_text, tmp_path, {"pass": step, "scheme": scheme})
    plain = run(model, pico_text, tmp_path, {"pass": "rtn", "scheme": scheme}, name="plain")
    assert distance(model, out, pico_text) < distance(model, plain, pico_text)
    layers = {layer["name"]: layer for layer in read_json(out / "edgepress.json")["layers"]}
    for block in WeightSource.open(model).anatomy.blocks:
        for linear in block.expert_linears():
            assert "token" in layers[linear.name]["detail"], linear.name


@pytest.mark.chain
@pytest.mark.parametrize("step", list(SCHEMES))
def test_an_expert_without_tokens_is_named_a_fallback(
    step: str, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    model = make_decoder(tmp_path / "m", "qwen3_moe", **SIX | {"num_experts": 16})
    out = compress_model(
        str(model),
        recipe=recipe(tmp_path, {"pass": step, "scheme": SCHEMES[step]}),
        output=tmp_path / "o",
        calibration=str(pico_text),
        samples=1,
        length=8,
    )
    layers = read_json(out / "edgepress.json")["layers"]
    idle = [layer for layer in layers if "no calibration token" in layer.get("detail", "")]
    assert idle
    assert {layer["status"] for layer in idle} == {"fallback-uncalibrated"}
    assert {layer["status"] for layer in layers if layer not in idle} == {"ok"}
