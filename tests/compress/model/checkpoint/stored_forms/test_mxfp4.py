"""gpt-oss as it is published: its experts in MXFP4, against what transformers makes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.cli.verbs.inspect import inspect_checkpoint
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError, RecipeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json, write_json
from safetensors.torch import load_file, save_file
from torch import Tensor

SETTINGS: dict[str, Any] = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
}
EXPERTS = "model.layers.0.mlp.experts"
RTN = {"pass": "rtn", "scheme": "W4A16-g32", "targets": ["gate_up", "down"]}


@pytest.fixture
def model(make_decoder: Callable[..., Path], tmp_path: Path) -> Path:
    """Codes at random, those of the ends among them, in powers of two around those of the weights."""
    path = make_decoder(tmp_path / "m", "gpt_oss")
    generator = torch.Generator().manual_seed(7)

    def edit(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.endswith((".gate_up_proj", ".down_proj"))]:
            count, inputs, out = tensors.pop(name).shape
            shape = (count, out, inputs // 32)
            tensors[f"{name}_blocks"] = torch.randint(0, 256, (*shape, 16), generator=generator).byte()
            tensors[f"{name}_scales"] = torch.randint(118, 124, shape, generator=generator).byte()

    changed(path, edit)
    config = read_json(path / "config.json")
    write_json(path / "config.json", {**config, "quantization_config": SETTINGS})
    return path


def changed(path: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(path / "model.safetensors")
    edit(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def test_every_weight_is_the_one_of_transformers(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    source = WeightSource.open(model)
    theirs: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for block, layer in zip(source.anatomy.blocks, theirs.model.layers, strict=True):
        held, mlps = layer.mlp.experts, list(block.expert_mlps())
        assert len(mlps) == held.num_experts == 6
        for index, expert in enumerate(mlps):
            assert expert.gate_up is not None
            assert torch.equal(source.dense(expert.gate_up.name), held.gate_up_proj[index].T)
            assert torch.equal(source.dense(expert.down.name), held.down_proj[index].T)
    found = inspect_checkpoint(model)
    assert found["from"] == "4 bits (MXFP4)" and found["opens_in"]["transformers"]["answer"] == "yes"


@pytest.mark.parametrize("exponent", [0, 1, 20, 127, 200, 252])
def test_the_smallest_and_the_largest_numbers_are_those_of_transformers(model: Path, exponent: int) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    def edit(tensors: dict[str, Tensor]) -> None:
        tensors[f"{EXPERTS}.down_proj_scales"][:] = exponent

    changed(model, edit)
    stored, source = load_file(model / "model.safetensors"), WeightSource.open(model)
    parts = (stored[f"{EXPERTS}.down_proj_{part}"] for part in ("blocks", "scales"))
    expected = convert_moe_packed_tensors(*parts, dtype=torch.float32)
    for index, weight in enumerate(expected):
        assert torch.equal(source.dense(f"{EXPERTS}.{index}.down_proj"), weight.T)


def test_rounding_again_needs_a_word(model: Path, tmp_path: Path, recipe: Callable[..., str]) -> None:
    with pytest.raises(RecipeError, match="36 layers that already have codes") as refused:
        plan_model(str(model), recipe=recipe(tmp_path, RTN))
    assert "--requantize" in refused.value.fix
    plan = plan_model(str(model), recipe=recipe(tmp_path, RTN), requantize=True)
    assert "from 4 bits (MXFP4): 36 layers" in plan.notes


@pytest.mark.chain
def test_experts_that_no_pass_touches_keep_their_codes(model: Path, tmp_path: Path) -> None:
    steps = tmp_path / "r.yaml"
    steps.write_text("passes: [{pass: rtn, scheme: W8A16-g32, targets: [o]}]")
    out = compress_model(str(model), recipe=str(steps), output=tmp_path / "o")
    before, after = WeightSource.open(model), WeightSource.open(out)
    names = [linear.name for block in before.anatomy.blocks for linear in block.expert_linears()]
    for name in names:
        assert after.schemes[name].name == "MXFP4A16"
        assert torch.equal(before.dense(name), after.dense(name))
    stored, came = (load_file(path / "model.safetensors") for path in (out, model))
    bytes_of = [sum(map(_nbytes, tensors.items())) for tensors in (stored, came)]
    assert bytes_of[0] == bytes_of[1]
    opens = read_json(out / "edgepress.json")["opens_in"]["transformers"]
    assert opens["answer"] == "no" and "experts of a gpt_oss" in opens["why"]
    again = compress_model(str(out), recipe=_after(tmp_path), output=tmp_path / "again")
    assert torch.equal(WeightSource.open(again).dense(names[0]), before.dense(names[0]))
    bundle = export_bundle(out, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"


@pytest.mark.chain
def test_experts_alone_in_codes_stay_as_they_are_published(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    steps = tmp_path / "r.yaml"
    steps.write_text("passes: [{pass: prune, sparsity: 0.5, score: magnitude, targets: [o]}]")
    out = compress_model(str(model), recipe=str(steps), output=tmp_path / "o")
    stored, came = (load_file(path / "model.safetensors") for path in (out, model))
    assert stored.keys() == came.keys()
    for part in ("down_proj_scales", "gate_up_proj_scales", "down_proj_bias"):
        assert torch.equal(stored[f"{EXPERTS}.{part}"], came[f"{EXPERTS}.{part}"])
    assert read_json(out / "config.json")["quantization_config"]["quant_method"] == "mxfp4"
    assert read_json(out / "edgepress.json")["opens_in"]["transformers"]["answer"] == "yes"
    ours, source = load_model(out), WeightSource.open(out)
    theirs: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    for expert, held in enumerate(theirs.model.layers[0].mlp.experts.down_proj):
        assert torch.equal(source.dense(f"{EXPERTS}.{expert}.down_proj"), held.T)
    ids = torch.tensor([[5, 9, 14, 3, 7]])
    with torch.no_grad():
        assert float((ours(ids).logits - theirs(ids).logits).abs().max()) < 1e-5


def _after(tmp_path: Path) -> str:
    steps = tmp_path / "again.yaml"
    steps.write_text("passes: [{pass: rtn, scheme: W8A16-g32, targets: [q]}]")
    return str(steps)


def _nbytes(named: tuple[str, Tensor]) -> int:
    """Of codes and scales of experts, in either form."""
    name, tensor = named
    mine = ("_blocks", "_scales", "weight_packed", "weight_scale")
    return tensor.nbytes if ".experts" in name and name.endswith(mine) else 0


@pytest.mark.chain
def test_experts_are_exported(model: Path, tmp_path: Path) -> None:
    manifest = read_json(export_bundle(model, output=tmp_path / "b") / "manifest.json")
    assert manifest["parity"]["status"] == "passed"


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("down_proj_blocks", torch.zeros(6, 64, 1, 16, dtype=torch.int8), "not U8"),
        ("down_proj_blocks", torch.zeros(6, 64, 2, 8, dtype=torch.uint8), "blocks of 16 bytes"),
        ("down_proj_blocks", torch.zeros(6, 64, 2, 16, dtype=torch.uint8), "blocks of 16 bytes"),
        ("down_proj_blocks", torch.zeros(6, 64, 16, dtype=torch.uint8), "no|not"),
        ("down_proj_blocks", torch.zeros(0, 64, 1, 16, dtype=torch.uint8), "no|not"),
        ("down_proj_scales", torch.zeros(6, 64, 2, dtype=torch.uint8), "blocks of 16 bytes"),
        ("down_proj_scales", torch.zeros(6, 64, 1), "not U8"),
        ("down_proj_scales", torch.full((6, 64, 1), 255, dtype=torch.uint8), "exponents that are none"),
        ("down_proj_scales", torch.full((6, 64, 1), 254, dtype=torch.uint8), "not finite"),
        ("down_proj_scales", None, "has no scales"),
        ("down_proj_blocks", None, "no|not"),
    ],
)
def test_parts_that_do_not_fit_are_refused(model: Path, part: str, value: Tensor | None, said: str) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        del tensors[f"{EXPERTS}.{part}"]
        if value is not None:
            tensors[f"{EXPERTS}.{part}"] = value

    changed(model, edit)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(model).dense(f"{EXPERTS}.0.down_proj")
