"""A config.json of a stranger: what contradicts the weights is refused by name, and no value of any key is a
traceback, a hang or gigabytes.
"""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from edgepress.compress.model.anatomy import Anatomy
from edgepress.compress.model.checkpoint.block_sizes import sizes_of
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.config_check import ACTIVATIONS
from edgepress.compress.model.family import size_keys
from edgepress.compress.model.meta_model import build
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError, EdgepressError, InputError

Models = Callable[[str], Path]

ENCODERS = ("bert", "roberta", "distilbert")
OWN: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
ENCODER_DECODERS = ("t5", "bart", "marian", "whisper")
FAMILIES = (
    *("llama", "mistral", "qwen2", "gemma2", "gpt2", "gpt_neox", "opt", "phi", "qwen3_moe", "mixtral"),
    *(*ENCODERS, *ENCODER_DECODERS),
)
# Of these transformers builds a model too, where the config is taken.
BUILT = ("llama", "gpt2", "bert", "t5")
VALUES = (0, -1, 7, 2**50, 10**400, 0.5, 1e300, float("nan"), float("inf"), "64", None, [64], {"a": 1}, True)
# Numbers that a config may have and the pico ones lack.
MORE = (
    *("rope_theta", "rope_scaling", "rotary_pct", "rotary_emb_base", "partial_rotary_factor", "n_inner"),
    *("sliding_window", "max_window_layers", "num_labels", "type_vocab_size", "n_positions", "head_dim"),
    *("original_max_position_embeddings", "num_experts", "quantization_config", "edgepress_blocks"),
    *("edgepress_kv_cache", "architectures", "layer_types", "mlp_only_layers", "id2label", "torch_dtype"),
)


@pytest.fixture(scope="module")
def model(
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    make_encoder_decoder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Models:
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp("hostile") / family
            make = make_encoder if family in ENCODERS else make_decoder
            make = make_encoder_decoder if family in ENCODER_DECODERS else make
            made[family] = make(folder, family, **OWN.get(family, {}))
        return made[family]

    return get


def with_config(reader: CheckpointReader, **changes: object) -> CheckpointReader:
    changed = copy.copy(reader)
    changed.config = {**reader.config, **changes}
    return changed


def sizes(anatomy: Anatomy) -> list[object]:
    return [
        *(anatomy.model_type, anatomy.kind, anatomy.hidden_size, anatomy.vocab_size),
        *(sizes_of(block) for block in anatomy.blocks),
        *(block.attention.head_dim for block in anatomy.blocks),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_any_value_of_any_number_is_refused_or_changes_no_size(family: str, model: Models) -> None:
    folder = model(family)
    reader = CheckpointReader.open(folder)
    expected = sizes(WeightSource(reader, {}).anatomy)
    numbers = [key for key, value in reader.config.items() if type(value) in (int, float)]
    original = (folder / "config.json").read_text()
    refused = 0
    for key in dict.fromkeys((*numbers, *MORE)):
        for value in VALUES:
            try:
                changed = with_config(reader, **{key: value})
                anatomy = WeightSource(changed, {}).anatomy
                assert sizes(anatomy) == expected, f"{key}: {value!r:.40}"
                if family in BUILT and value in (-1, 2**50):
                    (folder / "config.json").write_text(json.dumps(changed.config))
                    build(folder, anatomy)
            except EdgepressError:
                refused += 1
    (folder / "config.json").write_text(original)
    assert refused > 100


# By family, what config.json says, and the key that the refusal names.
CONTRADICTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"num_attention_heads": 0}, "num_attention_heads"),
    ("llama", {"num_attention_heads": 8}, "num_attention_heads is 8, the weights have 4"),
    ("llama", {"num_attention_heads": 3, "head_dim": None}, "num_attention_heads|heads of 21"),
    ("llama", {"num_key_value_heads": 4}, "num_key_value_heads is 4, the weights have 2"),
    ("llama", {"head_dim": 32}, "num_attention_heads|head_dim"),
    ("llama", {"vocab_size": 20_000_000}, "vocab_size is 20000000, the weights have 320"),
    ("llama", {"vocab_size": 2**50}, "vocab_size"),
    ("llama", {"hidden_size": 128}, "hidden_size is 128, the weights have 64"),
    ("llama", {"intermediate_size": 2**50}, "intermediate_size"),
    ("llama", {"intermediate_size": 64}, "intermediate_size is 64, the weights have 128"),
    ("llama", {"num_hidden_layers": 2**30}, "num_hidden_layers"),
    ("llama", {"max_position_embeddings": 2**50}, "max_position_embeddings"),
    ("llama", {"rms_norm_eps": 0}, "rms_norm_eps"),
    ("llama", {"rms_norm_eps": 10**400}, "rms_norm_eps"),
    ("llama", {"hidden_act": "sillu"}, "sillu"),
    ("llama", {"dtype": "float33"}, "float33"),
    ("llama", {"torch_dtype": 16}, "torch_dtype"),
    ("llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings"),
    ("llama", {"architectures": 3}, "architectures"),
    ("llama", {"rope_parameters": {"rope_theta": -1.0}}, "rope_theta"),
    ("llama", {"rope_parameters": {"rope_type": "linear"}}, "needs factor"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": float("inf")}}, "factor"),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2, "beta_fast": "32"}}, "beta_fast"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0] * 8}},
        "short_factor",
    ),
    (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 4.0,
                "high_freq_factor": 4.0,
            }
        },
        "low_freq_factor",
    ),
    ("mistral", {"sliding_window": -1}, "sliding_window"),
    ("qwen2", {"sliding_window": -5}, "sliding_window"),
    ("qwen2", {"max_window_layers": -1}, "max_window_layers"),
    ("gemma2", {"attn_logit_softcapping": float("nan")}, "attn_logit_softcapping"),
    ("gpt2", {"n_positions": 2**30}, "n_positions"),
    ("gpt2", {"n_head": 5}, "heads of 12|n_head"),
    ("qwen3_moe", {"num_local_experts": 8}, "num_local_experts is 8, the weights have 4"),
    ("qwen3_moe", {"moe_intermediate_size": 64}, "moe_intermediate_size"),
    ("bert", {"max_position_embeddings": 512}, "max_position_embeddings is 512, the weights have 130"),
    ("bert", {"type_vocab_size": 3}, "type_vocab_size"),
    ("bert", {"num_labels": 2**50}, "num_labels"),
    ("distilbert", {"n_heads": 5}, "heads of 12"),
    ("t5", {"d_kv": 16}, "relative_attention_bias"),
    ("t5", {"num_decoder_layers": 2**40}, "num_decoder_layers"),
    ("llama", {"attention_dropout": 5.0}, "attention_dropout must be from 0 to 1, not 5.0"),
    ("gpt2", {"resid_pdrop": -0.1}, "resid_pdrop"),
    ("bert", {"hidden_dropout_prob": float("nan")}, "hidden_dropout_prob"),
    ("bart", {"encoder_layerdrop": 2}, "encoder_layerdrop"),
    ("llama", {"pretraining_tp": -4}, "pretraining_tp"),
    ("llama", {"pretraining_tp": 0.5}, "pretraining_tp"),
]


def test_the_parts_of_a_sum_in_training_change_no_function(pico_llama: Path) -> None:
    torch.manual_seed(0)
    states, logits = torch.randint(0, 300, (1, 12)), []
    for parts in (1, 4):
        config = transformers.AutoConfig.from_pretrained(pico_llama, pretraining_tp=parts)
        model = transformers.AutoModelForCausalLM.from_pretrained(pico_llama, config=config)
        logits.append(model(states).logits)
    assert torch.equal(*logits)


@pytest.mark.parametrize(("family", "changes", "named"), CONTRADICTIONS)
def test_what_contradicts_the_weights_is_named(
    family: str, changes: dict[str, Any], named: str, model: Models
) -> None:
    reader = CheckpointReader.open(model(family))
    with pytest.raises(InputError, match=named):
        WeightSource(with_config(reader, **changes), {})


def test_absent_and_padded_sizes_are_taken(model: Models, make_decoder: Any, tmp_path: Path) -> None:
    reader = CheckpointReader.open(model("llama"))
    keys = size_keys(reader.config)
    for key in (keys.hidden, keys.ffn, keys.positions, "vocab_size", "num_key_value_heads"):
        left = {name: value for name, value in reader.config.items() if name != key}
        changed = with_config(reader)
        changed.config = left
        if key != "num_key_value_heads":  # without it there is a key head for every head
            WeightSource(changed, {})
    assert WeightSource.open(make_decoder(tmp_path / "padded", vocab_size=384)).anatomy.vocab_size == 384


def test_activations_are_transformers_own() -> None:
    from transformers.activations import ACT2FN

    assert set(ACT2FN) >= ACTIVATIONS


def test_a_form_that_transformers_builds_otherwise_is_typed(model: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(model("t5"), tmp_path / "t5")
    anatomy = WeightSource.open(folder).anatomy
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"is_gated_act": True}))
    with pytest.raises(CheckpointError, match=r"transformers makes no model of .*config\.json"):
        build(folder, anatomy)


QUANTIZATION: list[object] = [
    [],
    {"config_groups": []},
    {"config_groups": {"a": 3}},
    {"config_groups": {"a": {"weights": 4, "targets": ["Linear"]}}},
    {"config_groups": {"a": {"weights": {"num_bits": 7, "strategy": "channel"}, "targets": ["Linear"]}}},
    {"config_groups": {"a": {"weights": {"num_bits": [4], "strategy": {}}, "targets": ["Linear"]}}},
    {"config_groups": {"a": {"weights": {"num_bits": 8, "strategy": "channel"}, "targets": [8]}}},
    {"config_groups": {"a": {"weights": {"num_bits": 8, "strategy": "channel"}, "targets": ["re:("]}}},
    {"config_groups": {"a": {"weights": {"num_bits": 8, "strategy": "channel"}, "targets": ["re:(a+)+$"]}}},
    {
        "config_groups": {
            "a": {
                "weights": {"num_bits": 8, "strategy": "channel", "group_size": "x"},
                "input_activations": 8,
                "targets": ["Linear"],
            }
        }
    },
    {"config_groups": {"a": {"weights": {"type": "float", "num_bits": []}, "targets": ["Linear"]}}},
]


@pytest.mark.parametrize("settings", QUANTIZATION)
def test_schemes_that_are_none_are_refused(settings: Any, model: Models) -> None:
    reader = CheckpointReader.open(model("llama"))
    scale = "model.layers.0.self_attn.q_proj.weight_scale"
    whole = settings | {"quant_method": "compressed-tensors"} if isinstance(settings, dict) else settings
    changed = with_config(reader, quantization_config=whole)
    changed.shapes = {**reader.shapes, scale: (64, 1)}
    with pytest.raises(CheckpointError, match=r"quantization_config|compressed-tensors"):
        WeightSource(changed, {})
