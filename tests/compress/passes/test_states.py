"""Models whose blocks mix tokens by a state: how they are read, a run that was killed, what is folded, and
which settings are refused.
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError
from edgepress.files.hashed_tree import hash_tree

from ...rounding import same_sums

FAMILIES = ("lfm2", "mamba", "mamba2", "jamba")
RECIPE = "passes: [{pass: awq, scheme: W4A16-g16, quantize: false}, {pass: gptq, scheme: W4A16-g16}]"
Made = Callable[..., Path]
Watched = Callable[..., AbstractContextManager[list[float]]]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(5, 110, (2, 17), generator=torch.Generator().manual_seed(0))
    return model(ids, use_cache=False).logits  # type: ignore[no-any-return]


@pytest.mark.chain
@pytest.mark.parametrize(
    "family",
    # How a sweep goes on does not depend on the kind of block.
    [pytest.param(name, marks=() if name in ("mamba", "jamba") else pytest.mark.slow) for name in FAMILIES],
)
def test_a_killed_run_ends_with_the_same_bytes(
    family: str, make_decoder: Made, pico_text: Path, tmp_path: Path, watched: Watched
) -> None:
    model = make_decoder(tmp_path / "m", family)
    (tmp_path / "r.yaml").write_text(RECIPE)
    options: dict[str, Any] = {"recipe": str(tmp_path / "r.yaml"), "calibration": str(pico_text)}
    options |= {"samples": 4, "length": 32}
    whole = compress_model(str(model), output=tmp_path / "whole", **options)
    with watched("compressing blocks", kill_at=2):
        compress_model(str(model), output=tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()
    assert hash_tree(compress_model(str(model), output=tmp_path / "o", **options)) == hash_tree(whole)


@pytest.mark.chain
@pytest.mark.parametrize("family", FAMILIES)
def test_folding_changes_no_answer(family: str, make_decoder: Made, pico_text: Path, tmp_path: Path) -> None:
    model = make_decoder(tmp_path / "m", family)
    (tmp_path / "r.yaml").write_text("passes: [{pass: awq, scheme: W3A16-g16, quantize: false}]")
    options: dict[str, Any] = {"recipe": str(tmp_path / "r.yaml"), "calibration": str(pico_text)}
    out = compress_model(str(model), output=tmp_path / "o", samples=4, length=32, **options)
    before, after = WeightSource.open(model), WeightSource.open(out)
    changed = [name for name in before.names() if not torch.equal(before.tensor(name), after.tensor(name))]
    assert any("in_proj" in name for name in changed)
    assert same_sums(logits(load_model(out)), logits(load_model(model)))


@pytest.mark.parametrize(
    ("family", "changes", "why"),
    [
        ("lfm2", {"layer_types": ["conv"] * 4}, "not a part that this model family has"),
        ("lfm2", {"layer_types": ["conv", "mamba", "conv", "conv"]}, "must list conv or full_attention"),
        ("lfm2", {"layer_types": ["conv"]}, "for each of the 4 layers"),
        ("lfm2", {"conv_L_cache": 5}, r"expected \[64, 1, 5\]"),
        ("lfm2", {"conv_L_cache": 1 << 30}, "up to 64"),
        ("lfm2", {"layer_types": None, "full_attn_idxs": ["2"]}, "must list layers"),
        ("mamba", {"state_size": 9}, r"expected \[128, 9\]"),
        ("mamba", {"time_step_rank": 5}, r"expected \[128, 5\]"),
        ("mamba", {"conv_kernel": 0}, "conv_kernel must be a positive"),
        ("mamba2", {"num_heads": 4}, r"expected \[4\]"),
        ("mamba2", {"n_groups": 3}, "does not divide 8 heads"),
        ("mamba2", {"time_step_limit": [2.0, 1.0]}, "two ascending numbers"),
        ("mamba2", {"time_step_limit": [0.0, {"__float__": "NaN"}]}, "two ascending numbers"),
        ("mamba2", {"time_step_limit": [0, 10**400]}, "two ascending numbers"),
        ("jamba", {"attn_layer_offset": 3}, "must be below 3"),
        ("jamba", {"attn_layer_offset": 0}, "has no tensor"),
        ("jamba", {"mamba_d_state": 16}, r"expected \[128, 16\]"),
    ],
)
def test_settings_that_the_tensors_contradict_are_refused(
    family: str, changes: dict[str, Any], why: str, make_decoder: Made, tmp_path: Path
) -> None:
    config = make_decoder(tmp_path, family) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=why):
        WeightSource.open(tmp_path)


def test_lfm2_by_the_numbers_of_its_attending_layers(make_decoder: Made, tmp_path: Path) -> None:
    config = make_decoder(tmp_path, "lfm2") / "config.json"
    older = {**json.loads(config.read_text()), "full_attn_idxs": [2], "tie_embedding": True}
    del older["layer_types"], older["tie_word_embeddings"]
    config.write_text(json.dumps(older))
    anatomy = WeightSource.open(tmp_path).anatomy
    assert [block.attends for block in anatomy.blocks] == [False, False, True, False]
    assert anatomy.tied
    with pytest.raises(CheckpointError, match="has no attention"):
        anatomy.blocks[0].attention  # noqa: B018
