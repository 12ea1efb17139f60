"""What a file leaves out of its settings is what llama.cpp takes there, also where transformers has another
default.
"""

from typing import Any

import pytest
from edgepress.compress.model.gguf.configs import ROWS, config_of
from edgepress.compress.model.gguf.kind_configs import MIXTURES

SIZES: dict[str, object] = {"embedding_length": 64, "attention.head_count": 4, "context_length": 512}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}


@pytest.mark.parametrize("row", [ROWS["granite"], MIXTURES["granitemoe"]], ids=["granite", "granitemoe"])
def test_a_granite_without_a_factor_of_its_scores(row: Any) -> None:
    assert config_of(row, SIZES, {}, {})["attention_multiplier"] == 0.25
    stated = SIZES | {"attention.scale": 0.5}
    assert config_of(row, stated, {}, {})["attention_multiplier"] == 0.5


def test_yarn_begins_where_the_file_says_or_at_the_whole_context() -> None:
    found = config_of(MIXTURES["gpt-oss"], SIZES | YARN, {}, {})["rope_parameters"]
    assert found["rope_type"] == "yarn" and found["original_max_position_embeddings"] == 512
    assert (found["beta_fast"], found["beta_slow"]) == (32.0, 1.0)
    stated = SIZES | YARN | {"rope.scaling.original_context_length": 128, "rope.scaling.yarn_beta_slow": 2.0}
    found = config_of(MIXTURES["gpt-oss"], stated, {}, {})["rope_parameters"]
    assert (found["original_max_position_embeddings"], found["beta_slow"]) == (128, 2.0)
    plain = config_of(MIXTURES["qwen3moe"], SIZES | YARN, {}, {})["rope_parameters"]
    assert plain["rope_type"] == "default"


def test_a_deepseek_without_groups_or_a_factor_of_its_experts() -> None:
    stated = SIZES | {"attention.key_length": 32, "rope.dimension_count": 16}
    found = config_of(MIXTURES["deepseek2"], stated, {}, {})
    assert (found["n_group"], found["topk_group"], found["routed_scaling_factor"]) == (1, 1, 1.0)
    assert (found["norm_topk_prob"], found["q_lora_rank"], found["first_k_dense_replace"]) == (False, None, 0)
    assert (found["qk_nope_head_dim"], found["qk_rope_head_dim"]) == (16, 16)
