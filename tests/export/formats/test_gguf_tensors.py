"""The tensors of GGUF files, read by the gguf package, against a naive reckoning of them from the checkpoint:
a few of each family by formula, and as many numbers in all as the checkpoint has.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.benchmarks.lab.same_bytes import pico_families as pico
from edgepress.compress.api import compress_model
from edgepress.errors import ShapeError
from edgepress.export.api import export_bundle
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.numpy import load_file

pytestmark = pytest.mark.chain

Tensors = Mapping[str, NDArray[Any]]
Reckoned = dict[str, Callable[[Tensors], NDArray[Any]]]
OWN_HEAD = {"tie_word_embeddings": False}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
PLAIN = {"rope_type": "default", "rope_theta": 150000.0}
HEADS, SIZE = 4, 16  # of the pico models; two of keys


def plus_one(name: str) -> Callable[[Tensors], NDArray[Any]]:
    return lambda stored: stored[name] + np.float32(1)


def as_is(name: str) -> Callable[[Tensors], NDArray[Any]]:
    return lambda stored: stored[name]


def stacked(form: str, count: int = 4) -> Callable[[Tensors], NDArray[Any]]:
    return lambda stored: np.stack([stored[form.format(index)] for index in range(count)])


def neighbours(name: str) -> Callable[[Tensors], NDArray[Any]]:
    """Channels of a head that turn together, one after the other."""

    def of(stored: Tensors) -> NDArray[Any]:
        heads = stored[name].reshape(-1, 2, SIZE // 2, stored[name].shape[-1])
        return np.stack([heads[:, 0], heads[:, 1]], 2).reshape(stored[name].shape)

    return of


def unmixed(name: str, heads: int, size: int) -> Callable[[Tensors], NDArray[Any]]:
    """All queries, then all keys, then all values, of a matrix that has them head by head."""

    def of(stored: Tensors) -> NDArray[Any]:
        whole = stored[name].reshape(heads, 3, size, *stored[name].shape[1:])
        return np.concatenate([whole[:, part].reshape(-1, *whole.shape[3:]) for part in range(3)])

    return of


def every_other(name: str, first: int) -> Callable[[Tensors], NDArray[Any]]:
    """Rows of gate, or of up, of all experts, whose matrices are stored ``[in, out]`` or are biases."""

    def of(stored: Tensors) -> NDArray[Any]:
        chosen = stored[name][..., first::2]
        return np.swapaxes(chosen, 1, 2) if chosen.ndim > 2 else chosen

    return of


def decay(name: str) -> Callable[[Tensors], NDArray[Any]]:
    """What a state is multiplied by, of its logarithm."""
    return lambda stored: (-torch.exp(torch.from_numpy(stored[name]))).numpy()


def folded(name: str, *shape: int) -> Callable[[Tensors], NDArray[Any]]:
    return lambda stored: stored[name].reshape(shape)


LAYER, MIXTRAL = "model.layers.1.", "model.layers.1.block_sparse_moe."
MAMBA = "backbone.layers.1.mixer."
BLOOM, OSS = "transformer.h.1.self_attention.query_key_value", "model.layers.1.mlp.experts."
CASES: list[tuple[str, dict[str, Any], Reckoned]] = [
    (
        *("gemma", {"head_dim": 32, "num_key_value_heads": 1}),
        {
            "blk.1.attn_norm.weight": plus_one(f"{LAYER}input_layernorm.weight"),
            "output_norm.weight": plus_one("model.norm.weight"),
            "blk.1.attn_q.weight": as_is(f"{LAYER}self_attn.q_proj.weight"),
        },
    ),
    (
        *("gemma2", pico.GEMMA2 | {"query_pre_attn_scalar": 32}),
        {
            "blk.1.post_attention_norm.weight": plus_one(f"{LAYER}post_attention_layernorm.weight"),
            "blk.1.ffn_norm.weight": plus_one(f"{LAYER}pre_feedforward_layernorm.weight"),
            "blk.1.post_ffw_norm.weight": plus_one(f"{LAYER}post_feedforward_layernorm.weight"),
        },
    ),
    (
        *("gemma3_text", pico.GEMMA3 | {"query_pre_attn_scalar": 32, "sliding_window_pattern": 6}),
        {"blk.1.attn_q_norm.weight": plus_one(f"{LAYER}self_attn.q_norm.weight")},
    ),
    (
        *("falcon", pico.FALCON | {"multi_query": True}),
        {
            "blk.1.attn_qkv.weight": as_is(f"{BLOOM}.weight"),
            "blk.1.attn_norm.bias": as_is("transformer.h.1.input_layernorm.bias"),
        },
    ),
    (
        *("bloom", {"seq_length": 512}),
        {
            "blk.1.attn_qkv.weight": unmixed(f"{BLOOM}.weight", HEADS, SIZE),
            "blk.1.attn_qkv.bias": unmixed(f"{BLOOM}.bias", HEADS, SIZE),
            "token_embd_norm.bias": as_is("transformer.word_embeddings_layernorm.bias"),
        },
    ),
    ("mpt", {"max_seq_len": 512}, {"blk.1.attn_qkv.weight": as_is("transformer.blocks.1.attn.Wqkv.weight")}),
    (
        *("ministral3", {}),
        {"blk.1.attn_q.weight": neighbours(f"{LAYER}self_attn.q_proj.weight")},
    ),
    (
        *("mixtral", {"num_local_experts": 4, "sliding_window": None}),
        {
            "blk.1.ffn_gate_inp.weight": as_is(f"{MIXTRAL}gate.weight"),
            "blk.1.ffn_gate_exps.weight": stacked(MIXTRAL + "experts.{}.w1.weight"),
            "blk.1.ffn_up_exps.weight": stacked(MIXTRAL + "experts.{}.w3.weight"),
            "blk.1.ffn_down_exps.weight": stacked(MIXTRAL + "experts.{}.w2.weight"),
            "blk.1.attn_k.weight": neighbours(f"{LAYER}self_attn.k_proj.weight"),
        },
    ),
    (
        *("qwen2_moe", MOE | OWN_HEAD | {"shared_expert_intermediate_size": 64}),
        {
            "blk.1.ffn_gate_inp_shexp.weight": lambda stored: stored[
                f"{LAYER}mlp.shared_expert_gate.weight"
            ].reshape(-1),
            "blk.1.ffn_down_shexp.weight": as_is(f"{LAYER}mlp.shared_expert.down_proj.weight"),
            "blk.1.ffn_down_exps.weight": stacked(LAYER + "mlp.experts.{}.down_proj.weight"),
        },
    ),
    (
        *("granitemoe", {"num_local_experts": 4}),
        {
            "blk.1.ffn_gate_exps.weight": lambda stored: stored[f"{MIXTRAL}input_linear.weight"].reshape(
                4, 2, 128, 64
            )[:, 0],
            "blk.1.ffn_down_exps.weight": as_is(f"{MIXTRAL}output_linear.weight"),
        },
    ),
    (
        *("gpt_oss", pico.GPT_OSS | {"swiglu_limit": 7.0, "num_local_experts": 4, "rope_parameters": PLAIN}),
        {
            "blk.1.ffn_gate_exps.weight": every_other(f"{OSS}gate_up_proj", 0),
            "blk.1.ffn_up_exps.weight": every_other(f"{OSS}gate_up_proj", 1),
            "blk.1.ffn_up_exps.bias": every_other(f"{OSS}gate_up_proj_bias", 1),
            "blk.1.attn_sinks.weight": as_is(f"{LAYER}self_attn.sinks"),
            "blk.1.post_attention_norm.weight": as_is(f"{LAYER}post_attention_layernorm.weight"),
        },
    ),
    (
        *("deepseek_v3", pico.DEEPSEEK),
        {
            "blk.1.exp_probs_b.bias": as_is(f"{LAYER}mlp.gate.e_score_correction_bias"),
            "blk.1.attn_kv_b.weight": as_is(f"{LAYER}self_attn.kv_b_proj.weight"),
            "blk.1.ffn_up_shexp.weight": as_is(f"{LAYER}mlp.shared_experts.up_proj.weight"),
            "blk.0.ffn_up.weight": as_is("model.layers.0.mlp.up_proj.weight"),
        },
    ),
    (
        *("lfm2", pico.LFM2),
        {
            "blk.1.shortconv.conv.weight": folded(f"{LAYER}conv.conv.weight", 64, 3),
            "blk.1.shortconv.in_proj.weight": as_is(f"{LAYER}conv.in_proj.weight"),
            "blk.2.attn_q_norm.weight": as_is("model.layers.2.self_attn.q_layernorm.weight"),
            "token_embd_norm.weight": as_is("model.embedding_norm.weight"),
        },
    ),
    (
        *("mamba", {"state_size": 8}),
        {
            "blk.1.ssm_a": decay(f"{MAMBA}A_log"),
            "blk.1.ssm_d": as_is(f"{MAMBA}D"),
            "blk.1.ssm_conv1d.weight": folded(f"{MAMBA}conv1d.weight", 128, 4),
            "blk.1.ssm_conv1d.bias": as_is(f"{MAMBA}conv1d.bias"),
            "blk.1.ssm_dt.bias": as_is(f"{MAMBA}dt_proj.bias"),
        },
    ),
    (
        *("mamba2", pico.MAMBA2),
        {
            "blk.1.ssm_a": lambda stored: decay(f"{MAMBA}A_log")(stored).reshape(8, 1),
            "blk.1.ssm_d": folded(f"{MAMBA}D", 8, 1),
            "blk.1.ssm_dt.bias": as_is(f"{MAMBA}dt_bias"),
            "blk.1.ssm_norm.weight": folded(f"{MAMBA}norm.weight", 2, 64),
        },
    ),
    (
        *("jamba", pico.JAMBA),
        {
            "blk.0.ssm_dt_norm.weight": as_is("model.layers.0.mamba.dt_layernorm.weight"),
            "blk.1.ffn_gate_exps.weight": stacked(f"{LAYER}feed_forward.experts.{{}}.gate_proj.weight"),
            "blk.0.ffn_gate.weight": as_is("model.layers.0.feed_forward.gate_proj.weight"),
        },
    ),
]


def read(folder: Path) -> dict[str, NDArray[np.float32]]:
    (file,) = folder.glob("*.gguf")
    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in GGUFReader(file).tensors}


@pytest.mark.parametrize(("family", "changes", "reckoned"), CASES, ids=[case[0] for case in CASES])
def test_tensors_are_where_llama_cpp_looks_for_them(
    make_decoder: Callable[..., Path],
    tmp_path: Path,
    family: str,
    changes: dict[str, Any],
    reckoned: Reckoned,
) -> None:
    model = make_decoder(tmp_path / "m", family, **changes)
    stored = load_file(model / "model.safetensors")
    found = read(export_bundle(str(model), format="gguf", output=tmp_path / "g"))
    for name, formula in reckoned.items():
        np.testing.assert_array_equal(found[name], formula(stored), err_msg=name)
    tied = {"lm_head.weight"} if model_is_tied(model) else set()
    total = sum(array.size for name, array in stored.items() if name not in tied)
    assert sum(array.size for array in found.values()) == total


def model_is_tied(model: Path) -> bool:
    from edgepress.compress.model.weights import WeightSource

    return WeightSource.open(model).anatomy.tied


def test_codes_of_experts_are_stacked_as_they_are(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    changes = MOE | {"norm_topk_prob": True, "num_hidden_layers": 1}
    model = make_decoder(tmp_path / "m", "qwen3_moe", **changes)
    small = compress_model(str(model), scheme="Q4_0", output=tmp_path / "o")
    (file,) = export_bundle(str(small), format="gguf", output=tmp_path / "g").glob("*.gguf")
    kinds = {
        tensor.name: (tensor.tensor_type.name, tensor.shape.tolist()) for tensor in GGUFReader(file).tensors
    }
    assert kinds["blk.0.ffn_gate_exps.weight"] == ("Q4_0", [64, 32, 4])
    assert kinds["blk.0.ffn_down_exps.weight"] == ("Q4_0", [32, 64, 4])
    assert kinds["blk.0.ffn_gate_inp.weight"] == ("F32", [64, 4])


def test_experts_of_several_types_are_refused(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    changes = MOE | {"norm_topk_prob": True, "num_hidden_layers": 1}
    model = make_decoder(tmp_path / "m", "qwen3_moe", **changes)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "passes:\n- pass: rtn\n  scheme: W4A16-g32\n  ignore: ['*.experts.1.up_proj']\n",
        encoding="utf-8",
    )
    small = compress_model(str(model), recipe=str(recipe), output=tmp_path / "o")
    with pytest.raises(ShapeError, match=r"blk\.0\.ffn_up_exps\.weight is one tensor of all experts"):
        export_bundle(str(small), format="gguf", output=tmp_path / "g")
