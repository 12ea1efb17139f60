"""GGUF files of every family that is read: the model that was written, tensor by tensor and in its config."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.benchmarks.lab.same_bytes import pico_families as pico
from edgepress.compress.model.checkpoint import gguf_source
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.gguf.configs import ROWS
from edgepress.compress.model.gguf.families import ARCHITECTURES
from edgepress.compress.model.gguf.kind_configs import MIXTURES, STATES
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.export.api import export_bundle

from ....rounding import same_sums

OWN_HEAD = {"tie_word_embeddings": False}
TWO_HEADS = {"head_dim": 32, "num_attention_heads": 2}
IDS = torch.arange(3, 83).view(2, 40)
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
GEMMA3 = pico.GEMMA3 | {"query_pre_attn_scalar": 32, "sliding_window_pattern": 6, "num_hidden_layers": 7}
COHERE2 = pico.COHERE2 | {"num_hidden_layers": 4, "sliding_window_pattern": 4}
GPT_OSS = pico.GPT_OSS | {"swiglu_limit": 7.0}
PLAIN = {"rope_type": "default", "rope_theta": 150000.0}
YARN = PLAIN | {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
OF_DEEPSEEK = YARN | {"rope_theta": 10000.0, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0}
SMALLER = {"mscale": 0.707, "mscale_all_dim": 0.707, "beta_fast": 16.0}
DENSE_JAMBA = pico.JAMBA | {"num_experts": 1, "num_hidden_layers": 5}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"rope_parameters": LLAMA_3}),
    ("llama", {**OWN_HEAD, "head_dim": 24}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 32}),
    ("gemma", {"head_dim": 32, "num_key_value_heads": 1}),
    ("gemma2", pico.GEMMA2 | {"query_pre_attn_scalar": 32}),
    ("gemma3_text", GEMMA3),
    ("gemma3_text", GEMMA3 | {"rope_parameters": LINEAR}),
    ("smollm3", {"no_rope_layer_interval": 4, "num_hidden_layers": 4}),
    ("granite", pico.GRANITE),
    ("olmo2", OWN_HEAD),
    ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 3}),
    ("glm4", TWO_HEADS),
    ("ernie4_5", {}),
    ("starcoder2", {"head_dim": None}),
    ("stablelm", {**TWO_HEADS, **OWN_HEAD, "partial_rotary_factor": 0.5, "use_qkv_bias": True}),
    ("nemotron", {**TWO_HEADS, **OWN_HEAD}),
    ("phi", {**TWO_HEADS, **OWN_HEAD}),
    ("phi3", {}),
    ("gpt_neox", {**TWO_HEADS, "rotary_pct": 0.5, "hidden_act": "gelu"}),
    ("falcon", pico.FALCON),
    ("falcon", pico.FALCON | {"new_decoder_architecture": True, "num_kv_heads": 1}),
    ("bloom", {"seq_length": 512}),
    ("mpt", {"max_seq_len": 512}),
    ("cohere", {"logit_scale": 0.5}),
    ("cohere2", COHERE2),
    ("gpt2", {}),
    ("mixtral", pico.MIXTRAL | {"head_dim": 32}),
    ("qwen2_moe", pico.QWEN2_MOE | OWN_HEAD),
    ("qwen3_moe", pico.QWEN3_MOE | {"norm_topk_prob": True, "head_dim": 32}),
    ("olmoe", pico.OLMOE | OWN_HEAD | {"num_key_value_heads": 4}),
    ("granitemoe", pico.GRANITE | {"num_local_experts": 6, "num_experts_per_tok": 2}),
    ("gpt_oss", GPT_OSS | {"rope_parameters": PLAIN}),
    ("gpt_oss", GPT_OSS | {"rope_parameters": YARN}),
    ("deepseek_v3", pico.DEEPSEEK),
    ("deepseek_v3", pico.DEEPSEEK | {"q_lora_rank": None, "norm_topk_prob": False, "topk_group": 4}),
    ("deepseek_v3", pico.DEEPSEEK | {"rope_parameters": OF_DEEPSEEK}),
    ("deepseek_v3", pico.DEEPSEEK | {"rope_parameters": OF_DEEPSEEK | SMALLER}),
    ("lfm2", pico.LFM2),
    ("lfm2", {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2, **OWN_HEAD}),
    ("mamba", {"state_size": 8}),
    ("mamba", {**OWN_HEAD, "time_step_rank": 3, "conv_kernel": 3}),
    ("mamba2", pico.MAMBA2),
    ("mamba2", {"num_heads": 12, "head_dim": 16, "expand": 3, "n_groups": 1, "state_size": 8}),
    ("jamba", DENSE_JAMBA),
    ("jamba", pico.JAMBA),
    ("jamba", DENSE_JAMBA | {"attn_layer_period": 6, "attn_layer_offset": 0}),
]


def test_every_family_that_is_read_is_here() -> None:
    rows = [*ROWS.items(), *STATES.items(), *MIXTURES.items()]
    assert {family for family, _ in CASES} == {row.family for _, row in rows if not row.encodes}
    assert all(ARCHITECTURES[row.family].name == name for name, row in rows)


@pytest.mark.chain
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("family", "changes"), CASES)
def test_the_model_is_the_one_that_was_written(
    make_decoder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    changes: dict[str, Any],
) -> None:
    model = make_decoder(tmp_path / "m", family, **changes)
    # All have the same one, which test_gguf_source reads, in a process that takes most of such a test's time.
    monkeypatch.setattr(gguf_source, "save_tokenizer", lambda *_: None)
    (file,) = export_bundle(str(model), format="gguf", output=tmp_path / "g").glob("*.gguf")
    read = materialise(file, tmp_path / "read")
    mine, theirs = WeightSource.open(read).anatomy, WeightSource.open(model).anatomy
    assert mine.ropes() == theirs.ropes()
    ids = IDS[:, : mine.max_positions]  # a window that the family has no place for ends the context there
    with torch.no_grad():
        expected = load_model(model)(ids, use_cache=False).logits
        found = load_model(read)(ids, use_cache=False).logits
    assert same_sums(found, expected)
