"""K-quants of mixtures of experts, from recipe to file: each expert by the tokens that come to it, all of a
block stacked with their codes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.benchmarks.lab.same_bytes import pico_families as pico
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.numbers.super_blocks import quantize_blocks
from edgepress.compress.passes.k_quants import KQuants
from edgepress.compress.pipeline.block import Block
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

EXPERTS, ROLES, IDS = 3, ("gate", "up", "down"), torch.arange(3, 43).view(2, 20)
WIDE: dict[str, Any] = {"hidden_size": 256, "num_hidden_layers": 1}
MOE = WIDE | {
    "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 256,
    "norm_topk_prob": True,
}
PLAIN = {"pass": "k_quants", "importance": False}
Run = Callable[..., Path]


def of_experts(role: str, kind: str) -> list[str]:
    return [f"model.layers.0.mlp.experts.{expert}.{role}_proj.{kind}" for expert in range(EXPERTS)]


def tensors_of(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*.gguf")
    return {tensor.name: tensor for tensor in GGUFReader(file).tensors}


def dense(checkpoint: Path, *names: str) -> list[NDArray[np.float32]]:
    source = WeightSource.open(checkpoint)
    return [source.dense(name.removesuffix(".weight")).numpy() for name in names]


@pytest.fixture
def mixture(make_decoder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_decoder(tmp_path / "m", "qwen3_moe", **MOE)


def test_errors_of_an_expert_weigh_as_its_own_inputs_are_large(mixture: Path) -> None:
    anatomy, model = WeightSource.open(mixture).anatomy.blocks[0], load_model(mixture)
    linears: Any = {linear.name: model.get_submodule(linear.name) for linear in anatomy.linears()}
    block = Block(anatomy, model.get_submodule(anatomy.prefix), linears)
    generator, statistics = torch.Generator().manual_seed(0), {}
    for group in anatomy.inputs():
        power = torch.rand(group[0].in_features, generator=generator) ** 4
        idle = ".experts.1." in group[0].name
        statistics |= {linear.name: {"meansquare": 0 * power if idle else power} for linear in group}
    block.statistics = statistics
    experts, scheme = list(anatomy.expert_linears()), Scheme.parse("Q4_K")
    before = {linear.name: block.weight(linear).clone() for linear in experts}
    KQuants(scheme="Q4_K", targets=list(ROLES)).apply(block)
    for linear in experts:
        power = statistics[linear.name]["meansquare"]
        expected = quantize_blocks(before[linear.name], scheme, power if power.any() else None)
        found = block.quantized[linear.name]
        assert torch.equal(found.codes, expected.codes) and torch.equal(found.scale, expected.scale)
        assert found.minimum is not None and torch.equal(found.minimum, expected.minimum)  # type: ignore[arg-type]
    fallen = {status.name for status in block.statuses if status.status == "fallback-plain"}
    assert fallen == {linear.name for linear in experts if ".experts.1." in linear.name}


@pytest.mark.chain
@pytest.mark.parametrize(
    ("step", "types"), [("k_quants", ("Q2_K", "Q3_K", "Q4_K")), ("gptq", ("Q5_K", "Q6_K", "IQ4_NL"))]
)
def test_the_file_has_the_codes_of_all_experts_bit_by_bit(
    mixture: Path, pico_text: Path, tmp_path: Path, run: Run, step: str, types: tuple[str, ...]
) -> None:
    chosen = dict(zip(ROLES, types, strict=True))
    steps = [{"pass": step, "scheme": name, "targets": [role]} for role, name in chosen.items()]
    out = run(mixture, pico_text, tmp_path, *steps)
    layers = {layer["name"]: layer for layer in read_json(out / "edgepress.json")["layers"]}
    stored = load_file(out / "model.safetensors")
    found = tensors_of(export_bundle(out, format="gguf", output=tmp_path / "g"))
    for role, name in chosen.items():
        tensor = found[f"blk.0.ffn_{role}_exps.weight"]
        assert (tensor.tensor_type.name, tensor.shape.tolist()) == (name, [256, 256, EXPERTS])
        blocks = np.stack([stored[part] for part in of_experts(role, "weight_blocks")])
        np.testing.assert_array_equal(tensor.data, blocks)
        expected = np.stack(dense(out, *of_experts(role, "weight")))
        np.testing.assert_array_equal(dequantize(tensor.data, tensor.tensor_type), expected)
        details = [layers[part.removesuffix(".weight")]["detail"] for part in of_experts(role, "weight")]
        assert sum(int(detail.split("; ")[-1].split(" ")[0]) for detail in details) == 2 * 16 * 32


@pytest.mark.chain
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_experts_without_whole_blocks_have_smaller_ones_and_transformers_reads_them(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = make_decoder(tmp_path / "m", "qwen3_moe", **MOE | {"moe_intermediate_size": 96})
    plan = plan_model(str(model), scheme="Q3_K")
    assert plan.notes[0] == f"IQ4_NL for {EXPERTS + 1} layers whose inputs are no blocks of 256"
    out = compress_model(str(model), scheme="Q3_K", output=tmp_path / "o")
    reader = WeightSource.open(out).reader
    assert sum(map(reader.nbytes, reader.shapes)) == pytest.approx(plan.result_bytes, rel=0.02)
    folder = export_bundle(out, format="gguf", output=tmp_path / "g")
    kinds = {name: tensor.tensor_type.name for name, tensor in tensors_of(folder).items()}
    assert [kinds[f"blk.0.ffn_{role}_exps.weight"] for role in ROLES] == ["Q3_K", "Q3_K", "IQ4_NL"]
    assert kinds["blk.0.ffn_gate_inp.weight"] == "F32"
    (file,) = folder.glob("*.gguf")
    # Of the file's settings it passes over the width of the experts.
    read = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file.name, config=AutoConfig.from_pretrained(model), dtype=torch.float32
    )
    with torch.no_grad():
        expected = load_model(out, embedding=True)(IDS, use_cache=False).logits
        found = read(IDS, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mixtral", pico.MIXTRAL),
        ("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
        ("gpt_oss", pico.GPT_OSS | {"swiglu_limit": 7.0, "rope_parameters": {"rope_type": "default"}}),
        ("deepseek_v3", pico.DEEPSEEK),
    ],
)
def test_every_mixture_is_written_with_its_codes(
    make_decoder: Callable[..., Path], tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    model = make_decoder(tmp_path / "m", family, **changes | {"num_hidden_layers": 2})
    out = compress_model(str(model), scheme="IQ4_NL", output=tmp_path / "o")
    found = tensors_of(export_bundle(out, format="gguf", output=tmp_path / "g"))
    mlps = list(WeightSource.open(out).anatomy.blocks[1].expert_mlps())
    for role in ROLES:
        names = [getattr(mlp, role).name for mlp in mlps]
        if role != "down" and mlps[0].gate_up is not None:  # rows of the two alternate
            joined = dense(out, *(mlp.gate_up.name for mlp in mlps if mlp.gate_up is not None))
            expected = np.stack([whole[int(role == "up") :: 2] for whole in joined])
        else:
            expected = np.stack(dense(out, *names))
        tensor = found[f"blk.1.ffn_{role}_exps.weight"]
        assert tensor.tensor_type.name == "IQ4_NL"
        np.testing.assert_array_equal(dequantize(tensor.data, tensor.tensor_type), expected)


@pytest.mark.chain
def test_experts_that_stay_keep_their_blocks(
    mixture: Path, pico_text: Path, tmp_path: Path, run: Run
) -> None:
    rounds = {**PLAIN, "scheme": "Q2_K", "targets": list(ROLES)}
    whole = run(mixture, pico_text, tmp_path, rounds, name="whole")
    fewer = run(mixture, pico_text, tmp_path, rounds, {"pass": "experts", "keep": 0.7})
    before, after = (load_file(path / "model.safetensors") for path in (whole, fewer))
    for role in ROLES:
        blocks = [before[name] for name in of_experts(role, "weight_blocks")]
        kept = [after[name] for name in of_experts(role, "weight_blocks")[:2]]
        places = [[np.array_equal(own, one) for one in blocks].index(True) for own in kept]
        assert places in ([0, 1], [0, 2], [1, 2])


@pytest.mark.chain
def test_the_tokens_of_each_expert_make_it_better(
    mixture: Path,
    pico_text: Path,
    tmp_path: Path,
    run: Run,
    distance: Callable[[Path, Path, Path], float],
) -> None:
    path, generator = mixture / "model.safetensors", np.random.default_rng(0)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight"):  # a few channels are far larger
            tensors[name] = np.where(generator.random(tensor.shape) < 0.1, 12 * tensor, tensor)
    save_file(tensors, path, {"format": "pt"})
    asked = {"scheme": "Q2_K", "targets": list(ROLES)}
    ways = ({**PLAIN, **asked}, {"pass": "k_quants", **asked}, {"pass": "gptq", **asked})
    found = [
        distance(mixture, run(mixture, pico_text, tmp_path, way, name=f"o{place}"), pico_text)
        for place, way in enumerate(ways)
    ]
    assert found[2] < found[1] < found[0]
