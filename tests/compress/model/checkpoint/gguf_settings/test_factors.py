"""Numbers that a GGUF file states: they are those of the model that was written, and others are refused."""

from __future__ import annotations

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


def test_a_number_that_the_model_has_no_place_for_is_refused_before_a_weight(
    pico_llama: Path, tmp_path: Path
) -> None:
    write_gguf(pico_llama, tmp_path / "m.gguf", more=lambda writer: writer.add_attn_logit_softcapping(5.0))
    with pytest.raises(CheckpointError, match=r"says attn_logit_softcapping 5, and .* describes has none"):
        materialise(tmp_path / "m.gguf", tmp_path / "read")
    assert not (tmp_path / "read").exists()
