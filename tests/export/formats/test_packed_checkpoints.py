"""GPTQ's and AWQ's checkpoints: read code by code as the forms are defined, they are our weights, bit by
bit.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import GateFailed, InputError, ShapeError
from edgepress.export.api import export_bundle
from edgepress.export.formats import gptq
from edgepress.files.storage import read_json
from safetensors.numpy import load_file

pytestmark = pytest.mark.chain

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def number_at(words: np.ndarray, start: int, bits: int) -> int:
    """``bits`` bits of a stream of 32-bit words from the bit ``start``, lowest first."""
    stream = sum(int(word) << 32 * index for index, word in enumerate(words.view(np.uint32)))
    return stream >> start & ((1 << bits) - 1)


def gptq_weight(tensors: dict[str, np.ndarray], name: str, settings: dict[str, Any]) -> np.ndarray:
    """``[out, in]``, one code after the other."""
    words, zeros, scales, group_of = (
        tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")
    )
    bits, less = settings["bits"], int(settings["checkpoint_format"] == "gptq")
    weight = np.empty((scales.shape[1], len(group_of)), np.float32)
    for row, column in np.ndindex(weight.shape):
        group = group_of[column]
        code = number_at(words[:, row].copy(), column * bits, bits)
        zero = number_at(zeros[group], row * bits, bits) + less
        weight[row, column] = np.float32(code - zero) * np.float32(scales[group, row])
    return weight


def awq_weight(tensors: dict[str, np.ndarray], name: str, settings: dict[str, Any]) -> np.ndarray:
    """``[out, in]``, one code after the other."""
    words, zeros, scales = (tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales"))
    size = settings["group_size"]
    weight = np.empty((scales.shape[1], len(words)), np.float32)
    for row, column in np.ndindex(weight.shape):
        place = 4 * AWQ_ORDER.index(row % 8)
        code, zero = (
            number_at(line[row // 8 : row // 8 + 1].copy(), place, 4)
            for line in (words[column], zeros[column // size])
        )
        weight[row, column] = np.float32(code - zero) * np.float32(scales[column // size, row])
    return weight


@pytest.mark.parametrize(
    ("form", "scheme", "settings"),
    [
        ("gptq", "W4A16-g32", {"bits": 4, "group_size": 32, "sym": True, "checkpoint_format": "gptq"}),
        ("gptq", "W4A16_ASYM-g32", {"bits": 4, "sym": False, "checkpoint_format": "gptq_v2"}),
        ("gptq", "W3A16-g32", {"bits": 3, "sym": True}),
        ("gptq", "W2A16_ASYM-g16", {"bits": 2, "group_size": 16, "sym": False}),
        ("gptq", "W8A16-channel", {"bits": 8, "group_size": -1, "sym": True}),
        ("awq", "W4A16-g32", {"bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}),
        ("awq", "W4A16_ASYM-g32", {"bits": 4, "zero_point": True}),
    ],
)
def test_a_reader_of_the_form_finds_our_weights(
    pico_llama: Path, tmp_path: Path, form: str, scheme: str, settings: dict[str, Any]
) -> None:
    path = compress_model(str(pico_llama), scheme=scheme, output=tmp_path / "o")
    out = export_bundle(path, format=form, output=tmp_path / "f")
    found = read_json(out / "config.json")["quantization_config"]
    assert found["quant_method"] == form and settings.items() <= found.items()
    assert read_json(out / "quantize_config.json") == found
    assert read_json(out / "manifest.json")["parity"]["status"] == "passed"
    source, tensors = WeightSource.open(path), load_file(out / "model.safetensors")
    unpacked = gptq_weight if form == "gptq" else awq_weight
    for linear in list(source.anatomy.blocks[0].linears())[:3]:
        assert np.array_equal(unpacked(tensors, linear.name, found), source.dense(linear.name).numpy())
    reopened = WeightSource.open(out)
    assert reopened.schemes == source.schemes
    assert all(torch.equal(reopened.dense(name), source.dense(name)) for name in source.schemes)
    dense = [name for name in source.names() if name.removesuffix(".weight") not in source.schemes]
    assert "model.embed_tokens.weight" in dense
    for name in dense:
        assert np.array_equal(tensors[name], source.stored(name).numpy())


def test_a_card_names_vllm_where_it_was_seen_to_open_the_family(
    pico_llama: Path, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    granite = make_decoder(tmp_path / "granite", "granite")
    cases = [
        (pico_llama, "W4A16-g32", "gptq", "`vllm serve .` opens it too."),
        (pico_llama, "W4A16_ASYM-g32", "gptq", "vLLM opens symmetric weights of 4 and 8 bits in this form"),
        (pico_llama, "W4A16_ASYM-g32", "awq", "`vllm serve .` opens it too."),
        (granite, "W4A16-g32", "awq", "vLLM reads the form; that it opens a granite in it was not seen."),
    ]
    for number, (model, scheme, form, said) in enumerate(cases):
        path = compress_model(str(model), scheme=scheme, output=tmp_path / f"o{number}")
        out = export_bundle(path, format=form, output=tmp_path / f"f{number}")
        assert said in (out / "README.md").read_text(encoding="utf-8")


def test_what_the_forms_cannot_hold_is_refused(
    pico_llama: Path, pico_bert: Path, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    refused = [
        (pico_llama, "W8A8", "gptq", "activations that are not rounded"),
        (pico_llama, "W8A16-g32", "awq", "integer weights of 4 bits"),
        (make_decoder(tmp_path / "g", "gpt2"), "W4A16-g64", "gptq", "a gpt2 that transformers would"),
        (make_decoder(tmp_path / "x", "gpt_neox"), "W4A16-g32", "awq", "a gpt_neox that transformers would"),
        (pico_bert, "W4A16-g32", "awq", "no decoder"),
        (make_decoder(tmp_path / "s", intermediate_size=80), "W3A16-g16", "gptq", "80 × 64 codes of 3"),
    ]
    for number, (model, scheme, form, said) in enumerate(refused):
        path = compress_model(str(model), scheme=scheme, output=tmp_path / f"o{number}")
        with pytest.raises((InputError, ShapeError), match=said):
            export_bundle(path, format=form, output=tmp_path / "f")
    with pytest.raises(InputError, match="in float"):
        export_bundle(pico_llama, format="gptq", output=tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_several_schemes_are_refused(pico_llama: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: r\npasses:\n- {pass: rtn, scheme: W4A16-g32, ignore: [down]}\n"
        "- {pass: rtn, scheme: W8A16-g32, targets: [down]}"
    )
    path = compress_model(str(pico_llama), recipe=str(recipe), output=tmp_path / "o")
    with pytest.raises(InputError, match=r"several schemes \(W4A16-g32, W8A16-g32\)"):
        export_bundle(path, format="gptq", output=tmp_path / "f")


def test_a_checkpoint_that_differs_is_not_published(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "o"), gptq.Gptq.pack

    def wrong(self: Any, tensor: Any) -> dict[str, torch.Tensor]:
        parts = real(self, tensor)
        return {**parts, "qweight": parts["qweight"].flip(0)}

    monkeypatch.setattr(gptq.Gptq, "pack", wrong)
    with pytest.raises(GateFailed, match="not read back"):
        export_bundle(path, format="gptq", output=tmp_path / "f")
    assert not (tmp_path / "f").exists()
