"""Mixtures of experts in GGUF files: in few bits, a tensor for each expert, and with settings of a router
that the family does not have.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from edgepress.benchmarks.lab.same_bytes import pico_families as pico
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.gguf import tensors
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError, RecipeError
from edgepress.export.api import export_bundle
from safetensors.torch import load_file

pytestmark = [
    pytest.mark.chain,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("tokenizers_made_here"),
]

Stored = tuple[str, np.ndarray, Any]
Form = gguf.GGMLQuantizationType
VALUES = gguf.GGUFValueType
KINDS = {int: VALUES.UINT32, float: VALUES.FLOAT32, str: VALUES.STRING}
QWEN3_MOE = pico.QWEN3_MOE | {"norm_topk_prob": True, "num_hidden_layers": 2}
GPT_OSS = pico.GPT_OSS | {"swiglu_limit": 7.0, "num_hidden_layers": 2}
PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 150000.0}}


def as_it_is(tensor: Any) -> Iterator[Stored]:
    yield tensor.name, tensor.data, tensor.tensor_type


def one_by_one(tensor: Any) -> Iterator[Stored]:
    """Experts as files had them before they were stacked."""
    if "_exps." not in tensor.name:
        yield from as_it_is(tensor)
        return
    for index, expert in enumerate(tensor.data):
        yield tensor.name.replace("_exps.", f".{index}."), expert, tensor.tensor_type


def in_mxfp4(tensor: Any) -> Iterator[Stored]:
    """The weights of experts in it, as gpt-oss was released."""
    if not tensor.name.endswith("_exps.weight"):
        yield from as_it_is(tensor)
        return
    yield tensor.name, gguf.quantize(np.array(tensor.data), Form.MXFP4), Form.MXFP4


def rewritten(
    file: Path,
    target: Path,
    changes: Mapping[str, Any] | None = None,
    stored: Callable[[Any], Iterator[Stored]] = as_it_is,
) -> Path:
    """``file`` with settings of its architecture changed, or more of them, and its tensors ``stored`` in
    another way.
    """
    reader = gguf.GGUFReader(file)
    name = reader.fields["general.architecture"].contents()
    left = {f"{name}.{key}": value for key, value in (changes or {}).items()}
    writer = gguf.GGUFWriter(target, name)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind, *items = field.types
        value = left.pop(field.name, field.contents())
        writer.add_key_value(field.name, value, kind, sub_type=items[-1] if items else None)
    for key, value in left.items():
        writer.add_key_value(key, value, KINDS[type(value)])
    for tensor in reader.tensors:
        for own, data, form in stored(tensor):
            writer.add_tensor(own, np.ascontiguousarray(data), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def exported(model: Path, out: Path) -> Path:
    (file,) = export_bundle(str(model), format="gguf", output=out).glob("*.gguf")
    return file


@pytest.fixture(scope="module")
def qwen3_moe(make_decoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3_moe")
    return exported(make_decoder(folder / "m", "qwen3_moe", **QWEN3_MOE), folder / "g")


def test_a_tensor_for_each_expert_is_read(
    make_decoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Mixtral, whose first files have them, and some experts of a block at a time."""
    monkeypatch.setattr(tensors, "_EXPERTS", 2 * 4 * 128 * 64)
    model = make_decoder(tmp_path / "m", "mixtral", **pico.MIXTRAL)
    file = rewritten(exported(model, tmp_path / "g"), tmp_path / "first.gguf", stored=one_by_one)
    read = load_file(materialise(file, tmp_path / "read") / "model.safetensors")
    mine = load_file(model / "model.safetensors")
    assert read.keys() == mine.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in mine.items())


def test_gpt_oss_in_mxfp4_is_what_gguf_dequantizes(
    make_decoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    model = make_decoder(tmp_path / "m", "gpt_oss", **GPT_OSS, **PLAIN)
    file = rewritten(exported(model, tmp_path / "g"), tmp_path / "few.gguf", stored=in_mxfp4)
    source = WeightSource.open(materialise(file, tmp_path / "read"))
    kept = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    for name, first in (("gate", 0), ("up", 1)):
        tensor = kept[f"blk.1.ffn_{name}_exps.weight"]
        wanted = gguf.dequantize(tensor.data, tensor.tensor_type)[5]
        found = source.dense("model.layers.1.mlp.experts.5.gate_up_proj").numpy()
        np.testing.assert_array_equal(found[first::2], wanted)
    with pytest.raises(RecipeError, match="layers that already have codes from the model as it came"):
        plan_model(str(file), scheme="W4A16-g32")
    plan = plan_model(str(file), scheme="W4A16-g32", requantize=True)
    assert "from 4 bits (GGUF, MXFP4)" in plan.notes


def test_k_quants_of_experts_are_those_that_were_written(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    changes = pico.MIXTRAL | pico.WIDE | {"num_hidden_layers": 1, "num_local_experts": 3}
    model = make_decoder(tmp_path / "m", "mixtral", **changes)
    small = compress_model(str(model), scheme="Q4_K", output=tmp_path / "o")
    file = exported(Path(small), tmp_path / "g")
    mine, read = WeightSource.open(Path(small)), WeightSource.open(materialise(file, tmp_path / "read"))
    names = [linear.name for linear in mine.anatomy.linears()]
    assert any("experts.2.w2" in name for name in names)
    for name in names:
        assert torch.equal(read.dense(name), mine.dense(name)), name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expert_count": 32}, r"blk\.0\.ffn_gate_inp\.weight is \(6, 64\), not \(32, 64\)"),
        ({"expert_used_count": 7}, "has 6 experts, and a token goes through 7"),
        ({"expert_gating_func": 2}, "says expert_gating_func 2, and .* has 1"),
        ({"expert_weights_norm": 0}, "says expert_weights_norm 0, and .* has 1"),
        ({"expert_weights_scale": 3}, "says expert_weights_scale 3, and .* has 1"),
        ({"expert_group_count": 2}, "says expert_group_count 2, and .* has 1"),
        ({"expert_shared_feed_forward_length": 64}, "says expert_shared_feed_forward_length 64, .* has none"),
    ],
)
def test_experts_or_a_router_of_another_kind(
    qwen3_moe: Path, tmp_path: Path, changes: dict[str, int], said: str
) -> None:
    file = rewritten(qwen3_moe, tmp_path / "m.gguf", changes)
    with pytest.raises(CheckpointError, match=said):
        materialise(file, tmp_path / "read")
    assert not (tmp_path / "read").exists()


@pytest.mark.parametrize("name", ["ffn_down_exps.weight", "ffn_gate_inp.weight"])
def test_experts_that_are_not_as_many_as_said(qwen3_moe: Path, tmp_path: Path, name: str) -> None:
    def fewer(tensor: Any) -> Iterator[Stored]:
        yield tensor.name, tensor.data[:5] if tensor.name.endswith(name) else tensor.data, tensor.tensor_type

    file = rewritten(qwen3_moe, tmp_path / "m.gguf", stored=fewer)
    with pytest.raises(CheckpointError, match=rf"blk\.0\.{name} is \(5, .*, not \(6, "):
        materialise(file, tmp_path / "read")


def in_two(tensor: Any) -> Iterator[Stored]:
    """What keys and values come from, a tensor each, head by head, and those of keys turned."""
    if not tensor.name.endswith("attn_kv_b.weight"):
        yield from as_it_is(tensor)
        return
    heads = np.array(tensor.data).reshape(4, 16 + 24, 32)  # channels without positions, and of values
    name = tensor.name.replace("attn_kv_b", "attn_{}_b")
    yield name.format("k"), heads[:, :16].transpose(0, 2, 1), tensor.tensor_type
    yield name.format("v"), heads[:, 16:], tensor.tensor_type


def test_latent_attention_in_two_tensors(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    """As llama.cpp's converter has it: one head of keys, the narrow state and the turned channels."""
    model = make_decoder(tmp_path / "m", "deepseek_v3", **pico.DEEPSEEK, num_hidden_layers=2)
    newer = {
        "attention.key_length": 32 + 16,
        "attention.value_length": 32,
        "attention.head_count_kv": 1,
        "attention.key_length_mla": 32,
        "attention.value_length_mla": 24,
    }
    file = rewritten(exported(model, tmp_path / "g"), tmp_path / "m.gguf", newer, stored=in_two)
    read = load_file(materialise(file, tmp_path / "read") / "model.safetensors")
    mine = load_file(model / "model.safetensors")
    assert read.keys() == mine.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in mine.items())


def test_a_yarn_whose_scores_are_as_llama_cpp_guesses_them(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m", "deepseek_v3", **pico.DEEPSEEK, num_hidden_layers=2)
    stretched: dict[str, Any] = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
    file = rewritten(exported(model, tmp_path / "g"), tmp_path / "m.gguf", stretched)
    with pytest.raises(CheckpointError, match=r"\(yarn with no yarn_log_multiplier\)"):
        materialise(file, tmp_path / "read")


def test_yarn_with_a_factor_of_its_own(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
    model = make_decoder(tmp_path / "m", "gpt_oss", **GPT_OSS, rope_parameters=yarn)
    file = rewritten(exported(model, tmp_path / "g"), tmp_path / "m.gguf", {"rope.scaling.attn_factor": 2})
    with pytest.raises(CheckpointError, match=r"stretches its positions \(yarn with attn_factor\)"):
        materialise(file, tmp_path / "read")
