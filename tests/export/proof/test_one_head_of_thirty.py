"""A fault in one head of thirty is found, and its block is named, wherever in the head it is and however
small its part of what the block adds.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.api import compress_model
from edgepress.errors import GateFailed
from edgepress.export.api import export_bundle
from edgepress.export.graph.build import WeightView

pytestmark = pytest.mark.chain

HEADS, HEAD, DAMAGED, BLOCK = 30, 16, 17, "model.layers.1"
ROWS = slice(DAMAGED * HEAD, (DAMAGED + 1) * HEAD)


@pytest.fixture(scope="module")
def thirty(make_decoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of three blocks with thirty heads, at 4 bits."""
    folder = tmp_path_factory.mktemp("thirty")
    sizes = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": HEAD}
    model = make_decoder(folder / "model", "llama", hidden_size=HEADS * HEAD, num_hidden_layers=3, **sizes)
    return compress_model(str(model), scheme="W4A16", group_size=16, output=folder / "w4")


def swapped_rows(tensor: Any) -> Any:
    codes, scale = tensor.codes.clone(), tensor.scale.clone()
    codes[ROWS], scale[ROWS] = codes[ROWS].flip(0), scale[ROWS].flip(0)
    return replace(tensor, codes=codes, scale=scale)


def scaled_rows(tensor: Any) -> Any:
    scale = tensor.scale.clone()
    scale[ROWS] *= 1.02
    return replace(tensor, scale=scale)


def dropped_columns(tensor: Any) -> Any:
    codes = tensor.codes.clone()
    codes[:, ROWS] = 0
    return replace(tensor, codes=codes)


def one_bit(tensor: Any) -> Any:
    codes = tensor.codes.clone()
    codes[ROWS.start, 3] += 1 if codes[ROWS.start, 3] <= 0 else -1
    return replace(tensor, codes=codes)


FAULTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "rows of q": ("q_proj", swapped_rows),
    "rows of v": ("v_proj", swapped_rows),
    "scales of k": ("k_proj", scaled_rows),
    "scales of v": ("v_proj", scaled_rows),
    "columns of o": ("o_proj", dropped_columns),
    "a step of one code of v": ("v_proj", one_bit),
    "a step of one code of q": ("q_proj", one_bit),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_block_is_named(name: str, thirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linear, change = FAULTS[name]
    original = WeightView.quantized

    def planted(self: WeightView, module: str) -> Any:
        tensor = original(self, module)
        return change(tensor) if module == f"{BLOCK}.self_attn.{linear}" else tensor

    monkeypatch.setattr(WeightView, "quantized", planted)
    with pytest.raises(GateFailed, match=rf"difference of {BLOCK} with quantized weights"):
        export_bundle(thirty, output=tmp_path / "bundle")
    assert not list(tmp_path.iterdir())
