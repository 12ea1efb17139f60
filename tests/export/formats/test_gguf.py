"""GGUF of families that are not Llama: what is read back of it, what llama.cpp reads as factors, and refusals
of what its arithmetic leaves out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.benchmarks.lab.same_bytes import pico_families as pico
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.checkpoint.gguf_words import INEXACT
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import EdgepressError, InputError, RecipeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json, write_json
from gguf import GGUFReader

IDS = torch.arange(3, 43).view(2, 20)
OWN_HEAD = {"tie_word_embeddings": False}
TWO_HEADS = {"head_dim": 32, "num_attention_heads": 2}
GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.25,
    "residual_multiplier": 0.5,
    "logits_scaling": 2.0,
}
COHERE2 = {
    "logit_scale": 0.5,
    "num_hidden_layers": 4,
    "sliding_window": 24,
    "sliding_window_pattern": 4,
}
NO_WINDOWS = {"sliding_window": None, "layer_types": ["full_attention"] * 3}
MOE = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
}
GEMMA2 = pico.GEMMA2 | {"query_pre_attn_scalar": 32}
GEMMA3 = pico.GEMMA3 | {"query_pre_attn_scalar": 32, "sliding_window_pattern": 6}
FALCON, DEEPSEEK = pico.FALCON, pico.DEEPSEEK
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 150000.0}
OSS = pico.GPT_OSS | {"swiglu_limit": 7.0, "rope_parameters": PLAIN_ROPE}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 1e4}
OF_BOTH = {"mscale": 0.625, "mscale_all_dim": 0.625}
NEOX = {**TWO_HEADS, "rotary_pct": 0.5, "hidden_act": "gelu"}


def written(path: Path, out: Path) -> Path:
    """The GGUF file of a checkpoint; every tensor of it is held against the checkpoint's."""
    (file,) = export_bundle(str(path), format="gguf", output=out).glob("*.gguf")
    return file


@pytest.mark.chain
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen2", {}),
        pytest.param("phi3", {}, marks=pytest.mark.slow),
        ("nemotron", {**TWO_HEADS, **OWN_HEAD}),
        pytest.param("starcoder2", {"head_dim": None}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("tokenizers_made_here")
def test_what_is_read_is_the_checkpoint_in_four_bits(
    make_decoder: Callable[..., Path], tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    path = compress_model(
        str(make_decoder(tmp_path / "m", family, **changes)), scheme="Q4_0", output=tmp_path / "o"
    )
    read = materialise(written(path, tmp_path / "g"), tmp_path / "read")
    with torch.no_grad():
        expected = load_model(path, embedding=True)(IDS, use_cache=False).logits
        found = load_model(read)(IDS, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "changes", "name", "settings"),
    [
        ("qwen3", {}, "qwen3", {"attention.head_count_kv": 2}),
        ("smollm3", {"no_rope_layer_interval": 4}, "smollm3", {}),
        ("ernie4_5", {}, "ernie4_5", {}),
        ("olmo2", OWN_HEAD, "olmo2", {}),
        ("stablelm", {**TWO_HEADS, **OWN_HEAD, "partial_rotary_factor": 0.5}, "stablelm", {}),
        ("gpt_neox", NEOX, "gptneox", {"use_parallel_residual": True, "rope.dimension_count": 16}),
        ("cohere", {"logit_scale": 0.5}, "command-r", {"logit_scale": 0.5}),
        ("cohere2", COHERE2, "cohere2", {"attention.sliding_window": 24, "context_length": 512}),
        ("olmo3", {**OWN_HEAD, "sliding_window": 24}, "olmo2", {"context_length": 24}),
        ("exaone4", NO_WINDOWS, "exaone4", {}),
        ("glm4", TWO_HEADS, "glm4", {"rope.dimension_count": 16}),
        ("gpt2", {}, "gpt2", {"context_length": 512}),
        ("phi", {**TWO_HEADS, **OWN_HEAD}, "phi2", {"rope.dimension_count": 16}),
        ("gemma", {"head_dim": 32, "num_key_value_heads": 1}, "gemma", {"embedding_scale": 8.0}),
        (
            *("gemma2", GEMMA2, "gemma2"),
            {
                "attention.sliding_window": 24,
                "attn_logit_softcapping": 3.0,
                "final_logit_softcapping": 5.0,
                "attention.key_length": 32,
            },
        ),
        (
            *("gemma3_text", GEMMA3 | {"num_hidden_layers": 7}, "gemma3"),
            {"rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "attention.sliding_window": 24},
        ),
        ("falcon", FALCON, "falcon", {"attention.head_count_kv": 1, "rope.dimension_count": 32}),
        ("bloom", {"seq_length": 512}, "bloom", {"attention.max_alibi_bias": 8.0, "context_length": 512}),
        ("mpt", {"max_seq_len": 512}, "mpt", {"attention.max_alibi_bias": 8.0}),
        ("ministral", {"sliding_window": 24}, "llama", {"context_length": 24}),
        (
            *("ministral3", {}, "mistral3"),
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 16.0,
                "rope.scaling.original_context_length": 16384,
                "rope.scaling.yarn_log_multiplier": 1.0,
            },
        ),
        (
            *("mixtral", {"num_local_experts": 4, "sliding_window": None}, "llama"),
            {"expert_count": 4, "expert_used_count": 2, "feed_forward_length": 128},
        ),
        (
            *("qwen2_moe", MOE | OWN_HEAD, "qwen2moe"),
            {"expert_feed_forward_length": 32, "expert_shared_feed_forward_length": 64},
        ),
        ("olmoe", OWN_HEAD | {"num_key_value_heads": 4}, "olmoe", {"expert_used_count": 8}),
        ("gpt_oss", OSS, "gpt-oss", {"attention.sliding_window": 24, "rope.freq_base": 150000.0}),
        (
            *("deepseek_v3", DEEPSEEK, "deepseek2"),
            {
                "leading_dense_block_count": 1,
                "attention.q_lora_rank": 32,
                "attention.key_length": 32,
                "attention.value_length": 24,
                "rope.dimension_count": 16,
                "expert_gating_func": 2,
                "expert_weights_norm": True,
                "expert_weights_scale": 2.5,
                "expert_group_count": 4,
                "expert_group_used_count": 2,
                "expert_shared_count": 1,
            },
        ),
        (
            *("deepseek_v3", DEEPSEEK | {"rope_parameters": YARN | OF_BOTH}, "deepseek2"),
            {
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 128,
                "rope.scaling.yarn_log_multiplier": 0.0625,
            },
        ),
        (
            *("lfm2", pico.LFM2, "lfm2"),
            {"attention.head_count": 4, "attention.head_count_kv": [0, 0, 2, 0], "shortconv.l_cache": 3},
        ),
        (
            *("mamba", {"state_size": 8}, "mamba"),
            {
                "attention.head_count": 0,
                "feed_forward_length": 0,
                "context_length": 1 << 20,
                "ssm.conv_kernel": 4,
                "ssm.inner_size": 128,
                "ssm.state_size": 8,
                "ssm.time_step_rank": 4,
            },
        ),
        (
            *("mamba2", pico.MAMBA2, "mamba2"),
            {"ssm.inner_size": 128, "ssm.time_step_rank": 8, "ssm.group_count": 2},
        ),
        (
            *("jamba", pico.JAMBA, "jamba"),
            {"attention.head_count_kv": [0, 2, 0, 0], "expert_count": 4, "ssm.state_size": 8},
        ),
        (
            *("granite", GRANITE, "granite"),
            {"attention.scale": 0.25, "embedding_scale": 3.0, "residual_scale": 0.5, "logit_scale": 2.0},
        ),
    ],
)
def test_a_family_has_llama_cpp_s_name_and_its_factors(
    make_decoder: Callable[..., Path],
    tmp_path: Path,
    family: str,
    changes: dict[str, Any],
    name: str,
    settings: dict[str, Any],
) -> None:
    fields = GGUFReader(written(make_decoder(tmp_path / "m", family, **changes), tmp_path / "g")).fields
    assert fields["general.architecture"].contents() == name
    assert {key: fields[f"{name}.{key}"].contents() for key in settings} == settings


@pytest.mark.chain
def test_groups_of_experts_that_are_all_chosen_are_not_said(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m", "deepseek_v3", **DEEPSEEK | {"topk_group": DEEPSEEK["n_group"]})
    fields = GGUFReader(written(model, tmp_path / "g")).fields
    assert fields["deepseek2.expert_count"].contents() == 8
    assert not [key for key in fields if "expert_group" in key]


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "changes", "feature"),
    [
        ("lfm2", pico.LFM2 | {"conv_bias": True}, "lfm2 does not know .*biases"),
        ("lfm2", pico.LFM2 | {"head_dim": 32}, "heads that together are not as wide"),
        ("mamba", {"use_conv_bias": False}, "does not know convolutions without a bias"),
        (
            "mamba",
            {"expand": 3, "intermediate_size": 192},
            "a state space that is not twice as wide as the model",
        ),
        ("mamba", {"use_bias": True}, "mamba does not know biases"),
        ("mamba", {"hidden_act": "gelu"}, "does not know a state space with gelu"),
        ("mamba2", pico.MAMBA2 | {"time_step_limit": [0.0, 0.1]}, "does not know a step that is clamped"),
        ("mamba2", pico.MAMBA2 | {"use_conv_bias": False}, "convolutions without a bias"),
        ("jamba", pico.JAMBA | {"mamba_expand": 1}, "a state space that is not twice as wide as the model"),
        ("jamba", pico.JAMBA | {"mamba_conv_bias": False}, "convolutions without a bias"),
        ("gemma2", GEMMA2 | {"query_pre_attn_scalar": 24}, "does not know scaled scores"),
        ("gemma2", GEMMA2 | {"attn_logit_softcapping": None}, "has capped scores in any case"),
        ("gemma3_text", {**GEMMA3, "sliding_window_pattern": 2}, "the window, or none, of block 1"),
        (
            "falcon",
            FALCON | {"parallel_attn": False, "new_decoder_architecture": False},
            "has parallel blocks",
        ),
        ("falcon", FALCON | {"bias": True}, "does not know biases"),
        ("mpt", {"max_seq_len": 512, "attn_config": {"softmax_scale": 0.5}}, "scaled scores"),
        ("qwen3_moe", MOE, "has weights of the chosen experts that add up to one in any case"),
        ("qwen2_moe", MOE | OWN_HEAD | {"norm_topk_prob": True}, "does not know weights of the chosen"),
        ("olmoe", OWN_HEAD, "fewer heads of keys than of queries"),
        ("gpt_oss", OSS | {"swiglu_limit": 0.7}, "gates that are clamped at 0.7"),
        ("gpt_oss", OSS | {"rope_parameters": YARN | {"truncate": False}}, "whose range is not rounded"),
        ("deepseek_v3", DEEPSEEK | {"rope_parameters": YARN}, "yarn with factors of its own"),
        (
            *("deepseek_v3", DEEPSEEK | {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}}),
            "yarn with factors of its own",
        ),
        ("deepseek_v3", DEEPSEEK | {"num_hidden_layers": 26}, "26 blocks whose queries come from a narrow"),
        ("ministral3", {"rope_parameters": YARN | {"truncate": False}}, "yarn with factors of its own"),
        ("cohere2", {**COHERE2, "sliding_window_pattern": 2}, "block 1 without rotary"),
        ("cohere", OWN_HEAD, "a head that is not the embedding"),
        ("exaone4", {"sliding_window_pattern": 2}, "without rotary"),
        ("phi", {**OWN_HEAD, "head_dim": 32}, "heads that together"),
        ("opt", {}, "(?s)an? opt model.*no arithmetic"),
        ("llama", {"attention_bias": True}, "does not know biases"),
        ("smollm3", {"no_rope_layer_interval": 2, "num_hidden_layers": 2}, "block 1 without rotary"),
        ("olmo2", {}, "a head that is the embedding"),
        ("qwen2", {"hidden_act": "gelu"}, "an MLP with gelu"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "positions that are scaled",
        ),
    ],
)
def test_what_llama_cpp_leaves_out_is_refused(
    make_decoder: Callable[..., Path], tmp_path: Path, family: str, changes: dict[str, Any], feature: str
) -> None:
    with pytest.raises(InputError, match=feature):
        export_bundle(
            str(make_decoder(tmp_path / "m", family, **changes)), format="gguf", output=tmp_path / "g"
        )
    assert not (tmp_path / "g").exists()


@pytest.mark.chain
@pytest.mark.parametrize("scheme", ["Q4_0", "W8A16"])
@pytest.mark.parametrize("experts", [4, 1])
def test_a_jamba_in_few_bits_is_refused(
    make_decoder: Callable[..., Path], tmp_path: Path, scheme: str, experts: int
) -> None:
    model = make_decoder(tmp_path / "m", "jamba", **pico.JAMBA | {"num_experts": experts})
    checkpoint = compress_model(str(model), scheme=scheme, output=tmp_path / "o")
    with pytest.raises(
        InputError, match=r"misses the logits of a jamba then by 7 to 24 % .* 8 to 35 %"
    ) as refused:
        export_bundle(str(checkpoint), format="gguf", output=tmp_path / "g")
    assert "export the model in float to gguf, or this one to onnx" in refused.value.fix
    assert not (tmp_path / "g").exists()


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("jamba", pico.JAMBA, "IQ4_NL is for llama.cpp alone, and a jamba is in few bits"),
        ("opt", {}, "IQ4_NL is for llama.cpp alone, and a opt model cannot be written"),
        ("llama", {"attention_bias": True}, "IQ4_NL is for llama.cpp alone.* does not know biases"),
    ],
)
def test_a_type_of_llama_cpp_s_is_refused_to_what_is_not_written_for_it(
    make_decoder: Callable[..., Path], tmp_path: Path, family: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        plan_model(str(make_decoder(tmp_path / "m", family, **changes)), scheme="IQ4_NL")


@pytest.mark.chain
def test_a_tokenizer_that_llama_cpp_only_comes_close_to_is_refused(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m")
    tokenizer = read_json(model / "tokenizer.json")
    write_json(model / "tokenizer.json", {**tokenizer, "pre_tokenizer": INEXACT["tekken"]})
    with pytest.raises(InputError, match="calls tekken, and does not follow"):
        export_bundle(str(model), format="gguf", output=tmp_path / "g")


@pytest.mark.chain
def test_a_tokenizer_that_cuts_text_as_llama_cpp_cannot_is_refused(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m")
    tokenizer = read_json(model / "tokenizer.json")
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    write_json(model / "tokenizer.json", tokenizer)
    with pytest.raises(InputError, match="no name for"):
        export_bundle(str(model), format="gguf", output=tmp_path / "g")
    assert not (tmp_path / "g").exists()


NO_BPE = {"model": {"type": "BPE", "vocab": ["a"]}, "pre_tokenizer": {"type": "ByteLevel"}}


@pytest.mark.chain
@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "has no vocabulary"),
        (NO_BPE, "is not a tokenizer"),
        ("a link", "is a link that leaves its directory"),
    ],
)
def test_what_is_no_tokenizer_is_refused(
    content: Any, why: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m")
    file = model / "tokenizer.json"
    if content == "a link":
        file.rename(tmp_path / "secret.json")
        file.symlink_to(tmp_path / "secret.json")
    else:
        write_json(file, content)
    with pytest.raises(EdgepressError, match=why):
        export_bundle(str(model), format="gguf", output=tmp_path / "g")
    assert not (tmp_path / "g").exists()
