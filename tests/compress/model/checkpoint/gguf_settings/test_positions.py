"""Positions of a GGUF file: what transformers' reader leaves out is in the model all the same, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.checkpoint.gguf_header import read_gguf_header
from edgepress.compress.model.checkpoint.gguf_settings.positions import GgufPositions, check, complete
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError
from edgepress.export.api import export_bundle

from ..test_gguf_source import write_gguf

FILE = Path("model.gguf")
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def angles(checkpoint: Path, rope: dict[str, Any]) -> torch.Tensor:
    """Of a token further on, by pair of channels, as transformers has them under ``rope``."""
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = AutoConfig.from_pretrained(checkpoint, rope_parameters=rope)
    return LlamaRotaryEmbedding(config).inv_freq


@pytest.mark.chain
@pytest.mark.usefixtures("tokenizers_made_here")
def test_llama_3_s_positions_are_those_that_its_divisors_were_made_of(
    pico_llama: Path, tmp_path: Path
) -> None:
    wanted = angles(pico_llama, LLAMA_3)
    numbers = (angles(pico_llama, {"rope_type": "default", "rope_theta": 10_000.0}) / wanted).numpy()
    assert len(np.unique(numbers.round(4))) > 2  # divided by nothing, by something between, by the factor
    write_gguf(pico_llama, tmp_path / "m.gguf", more=lambda to: to.add_tensor("rope_freqs.weight", numbers))
    read = materialise(tmp_path / "m.gguf", tmp_path / "read")
    (rope,) = WeightSource.open(read).anatomy.ropes()
    assert rope.scaling["rope_type"] == "llama3" and rope.scaling["factor"] == pytest.approx(32.0)
    assert torch.allclose(load_model(read).model.rotary_emb.inv_freq, wanted, rtol=1e-5, atol=0)


@pytest.mark.chain
@pytest.mark.parametrize(
    ("more", "kind"),
    [
        (lambda to: to.add_tensor("rope_freqs.weight", np.full(8, 3, np.float32)), "rope_freqs.weight"),
        (lambda to: to.add_tensor("rope_factors_long.weight", np.ones(8, np.float32)), "longrope"),
        (lambda to: to.add_string("llama.rope.scaling.type", "yarn"), "yarn"),
        (lambda to: to.add_float32("llama.rope.scaling.factor", 4.0), "linear"),
        (lambda to: to.add_float32("llama.rope.scale_linear", 2.0), "linear"),
    ],
)
def test_positions_that_would_be_left_out_are_refused(
    more: Callable[[Any], None], kind: str, pico_llama: Path, tmp_path: Path
) -> None:
    write_gguf(pico_llama, tmp_path / "m.gguf", more=more)
    with pytest.raises(CheckpointError, match=rf"stretches its positions \({kind}\)") as refused:
        materialise(tmp_path / "m.gguf", tmp_path / "read")
    assert "safetensors" in refused.value.fix and not (tmp_path / "read").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"), [("type", "none", None), ("type", "linear", None), ("factor", 1.0, None)]
)
def test_positions_that_are_not_stretched(
    name: str, value: Any, said: str | None, pico_llama: Path, tmp_path: Path
) -> None:
    def more(to: Any) -> None:
        add = to.add_string if isinstance(value, str) else to.add_float32
        add(f"llama.rope.scaling.{name}", value)

    write_gguf(pico_llama, tmp_path / "m.gguf", more=more)
    assert read_gguf_header(tmp_path / "m.gguf").positions == GgufPositions(16, 10_000.0, said)


@pytest.mark.chain
@pytest.mark.usefixtures("tokenizers_made_here")
def test_the_base_is_the_file_s_where_transformers_has_its_own(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e6}
    model = make_decoder(tmp_path / "m", "starcoder2", rope_parameters=rope, sliding_window=None)
    out = compress_model(str(model), scheme="Q4_0", output=tmp_path / "o")
    (file,) = export_bundle(out, output=tmp_path / "g", format="gguf").glob("*.gguf")
    read = materialise(file, tmp_path / "read")
    assert WeightSource.open(read).anatomy.ropes()[0].theta == 1e6
    ids = torch.arange(3, 63)[None]
    with torch.no_grad():
        found = load_model(read)(ids, use_cache=False).logits
        wanted = load_model(out, embedding=True)(ids, use_cache=False).logits
    assert torch.allclose(found, wanted, atol=1e-6)


def test_divisors_for_positions_that_are_not_turned_are_refused() -> None:
    from transformers import BloomConfig

    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight"):
        complete(BloomConfig(), FILE, GgufPositions(divisors=8))


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (GgufPositions(turned=8), "positions turn 8 channels of a head, and 16 in the model"),
        (GgufPositions(base=5e5), "positions have the base 500000, and 10000 in the model"),
    ],
)
def test_other_positions_than_the_file_s_are_refused(
    stated: GgufPositions, said: str, pico_llama: Path
) -> None:
    anatomy = WeightSource.open(pico_llama).anatomy
    check(anatomy, FILE, GgufPositions(turned=16, base=1e4))
    check(anatomy, FILE, GgufPositions())
    with pytest.raises(CheckpointError, match=said):
        check(anatomy, FILE, stated)
