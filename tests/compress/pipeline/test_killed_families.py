"""Every family: a compression that is killed at work goes on, and ends with the bytes of one that was not."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.api import compress_model
from edgepress.files.hashed_tree import hash_tree

from ...export.test_families import ENCODERS, FIRST, MIXTURES, Variant, label

Watched = Callable[..., AbstractContextManager[list[float]]]
OTHERS = [variant for variant in (*MIXTURES, *ENCODERS) if variant.name == "as it is"]
SOON = 8  # one of so many; of other architectures, states, towers and stacks beside what compresses them


@pytest.mark.chain
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, marks=pytest.mark.slow if place % SOON else (), id=label(variant))
        for place, variant in enumerate([*FIRST, *OTHERS])
    ],
)
def test_a_killed_compression_goes_on_with_the_same_bytes(
    variant: Variant,
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    watched: Watched,
) -> None:
    make = make_encoder if variant in ENCODERS else make_decoder
    model = make(tmp_path / "m", variant.family, **variant.changes)
    (tmp_path / "r.yaml").write_text("passes: [{pass: gptq, scheme: W4A16-g16}]")
    options: dict[str, Any] = {"recipe": str(tmp_path / "r.yaml"), "calibration": str(pico_text)}
    options |= {"samples": 4, "length": 32}
    whole = compress_model(str(model), output=tmp_path / "whole", **options)
    with watched("compressing blocks", kill_at=2):
        compress_model(str(model), output=tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()
    assert hash_tree(compress_model(str(model), output=tmp_path / "o", **options)) == hash_tree(whole)
