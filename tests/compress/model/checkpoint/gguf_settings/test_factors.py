"""Numbers that a GGUF file states: they are those of the model that was written, and others are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.lab.same_bytes import pico_families as pico
from edgepress.compress.model.checkpoint.gguf_header import read_gguf_header
from edgepress.compress.model.checkpoint.gguf_settings.factors import check, factors_of
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError
from edgepress.export.api import export_bundle

from ..test_gguf_source import write_gguf

pytestmark = pytest.mark.chain

GEMMA2 = pico.GEMMA2 | {"query_pre_attn_scalar": 32}


def written(model: Path, out: Path) -> Path:
    (file,) = export_bundle(str(model), format="gguf", output=out).glob("*.gguf")
    return file


@pytest.mark.parametrize(
    ("family", "changes", "stated"),
    [
        ("gemma2", GEMMA2, {"attn_logit_softcapping", "final_logit_softcapping", "embedding_scale"}),
        ("bloom", {"seq_length": 512}, {"attention.max_alibi_bias", "attention.layer_norm_epsilon"}),
        ("granitemoe", pico.GRANITE | {"num_local_experts": 4}, {"attention.scale", "residual_scale"}),
        ("deepseek_v3", pico.DEEPSEEK, {"expert_group_used_count", "expert_weights_scale"}),
        ("mamba2", pico.MAMBA2, {"ssm.state_size", "ssm.group_count", "ssm.conv_kernel"}),
    ],
)
def test_a_file_states_the_model_and_no_other_number(
    make_decoder: Callable[..., Path], tmp_path: Path, family: str, changes: dict[str, Any], stated: set[str]
) -> None:
    model = make_decoder(tmp_path / "m", family, **changes)
    file, anatomy = written(model, tmp_path / "g"), WeightSource.open(model).anatomy
    settings = read_gguf_header(file).settings
    check(anatomy, file, settings)
    names = factors_of(anatomy).keys() & settings.keys()
    assert stated <= names
    for name in names:
        number = settings[name]
        assert isinstance(number, int | float)
        with pytest.raises(CheckpointError, match=f"says {name} .* and the model that it describes has"):
            check(anatomy, file, {name: 2 * number + 1})


@pytest.mark.parametrize(
    ("name", "stated", "shown"),
    [
        (
            "attention.head_count_kv",
            (0, 2, 0, 0),
            "says attention.head_count_kv 0, 2, 0, 0, .* has 0, 0, 2, 0",
        ),
        ("attention.sliding_window", 24, "says attention.sliding_window 24, .* has 0"),
        ("shortconv.l_cache", 4, "says shortconv.l_cache 4, .* has 3"),
    ],
)
def test_which_blocks_attend_is_held_against_the_model(
    make_decoder: Callable[..., Path], tmp_path: Path, name: str, stated: Any, shown: str
) -> None:
    anatomy = WeightSource.open(make_decoder(tmp_path / "m", "lfm2", **pico.LFM2)).anatomy
    check(anatomy, tmp_path, {"attention.head_count_kv": (0, 0, 2, 0), "attention.sliding_window": 0})
    with pytest.raises(CheckpointError, match=shown):
        check(anatomy, tmp_path, {name: stated})


def test_norms_of_falcon_s_mamba_are_no_mamba_s(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    anatomy = WeightSource.open(make_decoder(tmp_path / "m", "mamba", state_size=8)).anatomy
    check(anatomy, tmp_path, {"ssm.dt_b_c_rms": False})
    with pytest.raises(CheckpointError, match=r"says ssm\.dt_b_c_rms 1, .* has 0"):
        check(anatomy, tmp_path, {"ssm.dt_b_c_rms": True})


def test_a_number_that_the_model_has_no_place_for_is_refused_before_a_weight(
    pico_llama: Path, tmp_path: Path
) -> None:
    write_gguf(pico_llama, tmp_path / "m.gguf", more=lambda writer: writer.add_attn_logit_softcapping(5.0))
    with pytest.raises(CheckpointError, match=r"says attn_logit_softcapping 5, and .* describes has none"):
        materialise(tmp_path / "m.gguf", tmp_path / "read")
    assert not (tmp_path / "read").exists()
