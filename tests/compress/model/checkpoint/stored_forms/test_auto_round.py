"""AutoRound's checkpoints: GPTQ's words without an index, and AWQ's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError

from . import test_awq, test_gptq
from .rewriting import Packer, rewritten

SETTINGS: dict[str, Any] = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "data_type": "int"}
BY_GPTQ: dict[str, Any] = {"symmetric": False, "index": False}


@pytest.mark.parametrize(
    ("packing", "packer", "bits"),
    [
        ("auto_round:auto_gptq", test_gptq.packer(4, 32, **BY_GPTQ), 4),
        ("auto_round:auto_gptq", test_gptq.packer(3, 32, **BY_GPTQ), 3),
        ("auto_round", test_gptq.packer(4, 32, first=False, **BY_GPTQ), 4),
        ("auto_round:auto_awq", test_awq.packer(32), 4),
    ],
)
def test_every_weight_is_read_to_the_bit(
    pico_llama: Path, tmp_path: Path, packing: str, packer: Packer, bits: int
) -> None:
    settings = {**SETTINGS, "packing_format": packing, "bits": bits}
    weights = rewritten(pico_llama, tmp_path / "m", packer, settings)
    source = WeightSource.open(tmp_path / "m")
    assert source.reader.coded.described == f"{bits} bits (AutoRound, groups of 32)"
    for module, weight in weights.items():
        assert source.schemes[module].name == f"W{bits}A16_ASYM-g32"
        assert np.array_equal(source.dense(module).numpy(), weight)


def test_layers_with_bits_of_their_own(pico_llama: Path, tmp_path: Path) -> None:
    names = [f"model.layers.0.self_attn.{name}_proj" for name in "qkvo"]
    names += [f"model.layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")]
    settings = {**SETTINGS, "extra_config": {name: {"bits": 8} for name in names}}
    weights = rewritten(pico_llama, tmp_path / "m", test_gptq.packer(8, 32, index=False), settings)
    source = WeightSource.open(tmp_path / "m")
    assert source.reader.coded.described.startswith("8 bits")
    assert np.array_equal(source.dense(names[0]).numpy(), weights[names[0]])


@pytest.mark.parametrize(
    "more", [{"packing_format": "auto_round:marlin"}, {"data_type": "mx_fp"}, {"bits": None}]
)
def test_other_variants_are_refused(pico_llama: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    rewritten(pico_llama, tmp_path / "m", test_gptq.packer(4, 32, index=False), {**SETTINGS, **more})
    with pytest.raises(CheckpointError, match=r"packing_format|no whole number"):
        WeightSource.open(tmp_path / "m")
