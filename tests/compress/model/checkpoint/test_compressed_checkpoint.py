"""Compressed checkpoints: the compressed-tensors library's bits, and transformers' own logits."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from edgepress.compress.api import compress_model
from edgepress.compress.model.checkpoint.packed_codes import pack, unpack
from edgepress.compress.model.checkpoint.quantization_config import INTEGER, PACKED, forms
from edgepress.compress.model.checkpoint.stored_tensors import restored, stored
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import BITS, Scheme
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ....rounding import same_sums

pytestmark = pytest.mark.chain


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(BITS), st.integers(1, 5), st.integers(1, 200), st.integers(0, 1000))
def test_packing_is_the_librarys_and_round_trips(bits: int, rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    codes = torch.randint(low, high, (rows, columns), generator=generator).to(torch.int8)
    words = pack(codes, bits)
    assert torch.equal(words, pack_to_int32(codes, bits))
    assert torch.equal(unpack(words, bits, columns), codes)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *product(
            ["W2A16-g16", "W3A16_ASYM-g32", "W4A16-g64", "W8A16_ASYM-channel", "W8A8"], [PACKED, INTEGER]
        ),
        *((name, "") for name in ("FP8_DYNAMIC", "NVFP4A16", "MXFP4A16")),
    ],
)
@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_stored_tensors_restore_exactly(name: str, size: float, form: str) -> None:
    scheme = Scheme.parse(name)
    weight = torch.randn(37, 64, generator=torch.Generator().manual_seed(0)) * size
    tensor = quantize(weight, scheme)
    tensors = stored("layer", tensor, form)
    again = restored("layer", scheme, tensors.__getitem__, form)
    assert torch.equal(again.codes.float(), tensor.codes.float()) and torch.equal(again.scale, tensor.scale)
    assert torch.equal(again.dequantize(), tensor.dequantize())


def test_asymmetric_codes_are_packed_only_when_alone() -> None:
    four, zeros, eight = (Scheme.parse(name) for name in ("W4A16-g32", "W3A16_ASYM-g32", "W8A8"))
    assert forms([zeros, zeros]) == {zeros: PACKED}
    assert forms([four, zeros, eight]) == {four: PACKED, zeros: INTEGER, eight: INTEGER}


def outputs(model: Any) -> torch.Tensor:
    ids = torch.randint(3, 100, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        result = model(ids)
    return result.logits if hasattr(result, "logits") else result.last_hidden_state  # type: ignore[no-any-return]


MIXED = """
passes:
  - {pass: rtn, scheme: W4A16-g32, targets: [q, k]}
  - {pass: rtn, scheme: W4A16_ASYM-g32, targets: [v, o]}
  - {pass: w8a8, targets: ["*.up_proj", "*.gate_proj"]}
  - {pass: rtn, scheme: W3A16-g16, targets: [down]}
"""
SOME_ASYMMETRIC = "passes: [{pass: rtn, scheme: W4A16_ASYM-g32, targets: [gate, up]}]"
TWO_ASYMMETRIC = """
passes:
  - {pass: rtn, scheme: W4A16_ASYM-g32, targets: [gate, up]}
  - {pass: rtn, scheme: W3A16_ASYM-g16, targets: [q, k, v]}
"""


@pytest.mark.parametrize(
    "scheme", ["W4A16-channel", "W8A16-g32", "W3A16_ASYM-g16", MIXED, SOME_ASYMMETRIC, TWO_ASYMMETRIC]
)
def test_transformers_opens_decoders_and_computes_the_same_logits(
    pico_llama: Path, tmp_path: Path, scheme: str
) -> None:
    from transformers import AutoModelForCausalLM

    choice = {"scheme": scheme}
    if "passes" in scheme:
        (tmp_path / "r.yaml").write_text(scheme)
        choice = {"recipe": str(tmp_path / "r.yaml")}
    out = compress_model(str(pico_llama), output=tmp_path / "o", **choice)  # type: ignore[arg-type]
    theirs = AutoModelForCausalLM.from_pretrained(out).eval()
    ours = load_model(out)
    assert same_sums(outputs(ours), outputs(theirs))
    assert not torch.equal(outputs(ours), outputs(load_model(pico_llama)))


FLOATS = ["FP8_DYNAMIC", "FP8", "NVFP4A16", "MXFP4A16", "NVFP4", "MXFP4"]
MIXED_FLOATS = """
passes:
  - {pass: rtn, scheme: NVFP4, targets: [q, k, v, o]}
  - {pass: rtn, scheme: FP8_DYNAMIC, targets: [gate, up]}
  - {pass: gptq, scheme: MXFP4A16, targets: [down]}
"""
CALIBRATED: dict[str, Any] = {"samples": 4, "length": 32}


@pytest.mark.parametrize("scheme", FLOATS[:4])
def test_transformers_opens_floats_and_computes_the_same_logits(
    pico_llama: Path, pico_text: Path, tmp_path: Path, scheme: str
) -> None:
    from transformers import AutoModelForCausalLM

    out = compress_model(
        str(pico_llama), output=tmp_path / "o", scheme=scheme, calibration=str(pico_text), **CALIBRATED
    )
    theirs = AutoModelForCausalLM.from_pretrained(out).eval()
    assert same_sums(outputs(load_model(out)), outputs(theirs))
    original = outputs(load_model(pico_llama))
    assert 0 < (outputs(theirs) - original).square().mean() < 0.4 * original.square().mean()


@pytest.mark.parametrize("scheme", ["W4A16_ASYM-g32", "W8A16_ASYM-channel", *FLOATS, MIXED_FLOATS, None])
def test_a_bfloat16_model_computes_the_same_in_bfloat16(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, scheme: str | None
) -> None:
    from transformers import AutoModelForCausalLM

    path = make_decoder(tmp_path / "m", dtype=torch.bfloat16)
    if scheme is not None:
        (tmp_path / "r.yaml").write_text(scheme)
        choice = {"recipe": str(tmp_path / "r.yaml")} if "passes" in scheme else {"scheme": scheme}
        calibration = None if "ASYM" in scheme else str(pico_text)
        path = compress_model(
            str(path), output=tmp_path / "o", calibration=calibration, **CALIBRATED, **choice
        )
    theirs = AutoModelForCausalLM.from_pretrained(path).eval()
    assert outputs(theirs).dtype == torch.bfloat16
    assert torch.equal(outputs(load_model(path, dtype=torch.bfloat16)), outputs(theirs))


FAMILIES = [
    "bitnet",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gpt2",
    "gpt_neox",
    "opt",
    "phi",
]


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dense_loading_is_transformers_own(
    make_decoder: Callable[..., Path], tmp_path: Path, model_type: str, dtype: str
) -> None:
    from transformers import AutoModelForCausalLM

    tied = {"tie_word_embeddings": model_type in ("mistral", "gemma2", "opt", "gpt2")}
    model = make_decoder(tmp_path / "m", model_type, **tied, dtype=dtype)
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    assert same_sums(outputs(load_model(model)), outputs(theirs))


def test_gpt2s_linears_keep_their_stored_form_while_dense(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = make_decoder(tmp_path / "m", "gpt2")
    (tmp_path / "r.yaml").write_text("passes:\n  - {pass: magnitude, sparsity: 0.5}\n")
    out = compress_model(str(model), output=tmp_path / "o", recipe=str(tmp_path / "r.yaml"))
    theirs = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert same_sums(outputs(load_model(out)), outputs(theirs))
    assert (theirs.transformer.h[1].mlp.c_fc.weight == 0).float().mean() == 0.5


def test_gpt2_saved_without_its_head(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    model = make_decoder(tmp_path / "m", "gpt2")
    before = outputs(load_model(model))
    tensors = load_file(model / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, model / "model.safetensors", {"format": "pt"})
    assert same_sums(outputs(load_model(model)), before)
    out = compress_model(str(model), output=tmp_path / "o", scheme="W8A16-g32")
    assert 0 < (outputs(load_model(out)) - before).abs().max() < 0.5


@pytest.mark.parametrize("model_type", ["gemma", "gemma2", "gpt2", "gpt_neox", "opt", "phi"])
@pytest.mark.parametrize("algorithm", ["rtn", "gptq"])
def test_families_are_compressed(
    model_type: str, algorithm: str, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = make_decoder(tmp_path / "m", model_type, num_hidden_layers=2)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"passes:\n  - {{pass: {algorithm}, scheme: W4A16-g32}}\n")
    out = compress_model(
        str(model),
        output=tmp_path / "o",
        recipe=str(recipe),
        calibration=str(pico_text) if algorithm == "gptq" else None,
        samples=4,
        length=32,
        strict=True,
    )
    ours = load_model(out)
    theirs = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert same_sums(outputs(ours), outputs(theirs))
    assert 0 < (outputs(ours) - outputs(load_model(model))).abs().mean() < 0.5
