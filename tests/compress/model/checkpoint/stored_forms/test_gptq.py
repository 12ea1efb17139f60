"""GPTQ's checkpoints: what a packer stored code by code is read to the bit, whatever order groups have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError, RecipeError
from edgepress.files.storage import read_json, write_json

from .rewriting import BLOCK, Packer, Part, changed, on_grid, rewritten, stream

Q, DOWN = f"{BLOCK}self_attn.q_proj", f"{BLOCK}mlp.down_proj"


def packer(
    bits: int,
    size: int,
    *,
    symmetric: bool = True,
    ordered: bool = False,
    first: bool = True,
    index: bool = True,
) -> Packer:
    """As GPTQModel packs: in its first version one is taken off whole words of zero points."""

    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        inputs = weight.shape[1]
        group_of = np.arange(inputs) // (inputs if size == -1 else size)
        if ordered:
            group_of = np.random.default_rng(7).permutation(group_of)
        codes, zeros, scales, value = on_grid(weight, bits, group_of, symmetric, len(module))
        stored = zeros if not first or 32 % bits == 0 else (zeros - 1) % (1 << bits)
        words = np.stack([stream(list(line), bits) for line in stored.T])
        if first and 32 % bits == 0:
            ones = np.uint32(sum(1 << start for start in range(0, 32, bits)))
            words = (words.view(np.uint32) - ones).view(np.int32)  # wraps around
        parts = {
            "qweight": np.stack([stream(list(line), bits) for line in codes], 1),
            "qzeros": words,
            "scales": scales.T,
        }
        return parts | ({"g_idx": group_of.astype(np.int32)} if index else {}), value

    return pack


def settings(bits: int, size: int, **more: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": size, "checkpoint_format": "gptq", **more}


@pytest.mark.parametrize(
    ("bits", "size", "options", "scheme"),
    [
        (4, 32, {}, "W4A16-g32"),
        (4, 32, {"symmetric": False}, "W4A16_ASYM-g32"),
        (4, 32, {"symmetric": False, "first": False}, "W4A16_ASYM-g32"),
        (4, 16, {"symmetric": False, "ordered": True}, None),
        (4, 32, {"index": False}, "W4A16-g32"),
        (3, 32, {"symmetric": False}, "W3A16_ASYM-g32"),
        (3, 32, {"ordered": True}, None),
        (2, 16, {"symmetric": False}, "W2A16_ASYM-g16"),
        (8, -1, {}, "W8A16-channel"),
        (8, 32, {"symmetric": False}, "W8A16_ASYM-g32"),
        (4, 8, {}, None),
    ],
)
def test_every_weight_is_read_to_the_bit(
    pico_llama: Path, tmp_path: Path, bits: int, size: int, options: dict[str, Any], scheme: str | None
) -> None:
    version = "gptq" if options.get("first", True) else "gptq_v2"
    weights = rewritten(
        pico_llama,
        tmp_path / "m",
        packer(bits, size, **options),
        settings(bits, size, checkpoint_format=version),
    )
    source = WeightSource.open(tmp_path / "m")
    groups = "one scale per channel" if size == -1 else f"groups of {size}"
    assert source.reader.coded.described == f"{bits} bits (GPTQ, {groups})"
    assert len(weights) == 7 and source.reader.coded.by_module.keys() == weights.keys()
    for module, weight in weights.items():
        assert np.array_equal(source.dense(module).numpy(), weight)
        assert np.array_equal(source.reader.read([f"{module}.weight"])[f"{module}.weight"].numpy(), weight)
        found = source.schemes.get(module)
        assert (None if found is None else found.name) == scheme
    assert "quantization_config" not in source.reader.config
    assert f"{Q}.qweight" not in source.shapes and source.shapes[f"{Q}.weight"] == weights[Q].shape


def test_settings_in_a_file_of_their_own(pico_llama: Path, tmp_path: Path) -> None:
    own = {"bits": 4, "group_size": 32, "desc_act": False}
    weights = rewritten(pico_llama, tmp_path / "m", packer(4, 32), own, "quantize_config.json")
    assert np.array_equal(WeightSource.open(tmp_path / "m").dense(Q).numpy(), weights[Q])


def test_a_scale_of_nothing_is_a_weight_of_nothing(pico_llama: Path, tmp_path: Path) -> None:
    weights = rewritten(pico_llama, tmp_path / "m", packer(4, 32, symmetric=False), settings(4, 32))

    def empty(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.scales"][0, :5] = 0

    changed(tmp_path / "m", empty)
    tensor = WeightSource.open(tmp_path / "m").linear(Q)
    weights[Q][:5, :32] = 0
    assert not isinstance(tensor, torch.Tensor) and bool((tensor.scale > 0).all())
    assert np.array_equal(tensor.dequantize().numpy(), weights[Q])


def test_what_is_quantized_is_rounded_again_only_with_a_word(pico_llama: Path, tmp_path: Path) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(4, 32), settings(4, 32))
    model = str(tmp_path / "m")
    with pytest.raises(
        RecipeError, match="7 layers that already have codes from the model as it came"
    ) as refused:
        plan_model(model, scheme="W8A16")
    assert "--requantize" in refused.value.fix and "requantize: true in rtn" in refused.value.fix
    plan = plan_model(model, scheme="W8A16", requantize=True)
    assert "from 4 bits (GPTQ, groups of 32): 7 layers" in plan.notes
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: rtn, scheme: W8A16-g32, requantize: true}]")
    assert "from 4 bits (GPTQ, groups of 32): 7 layers" in plan_model(model, recipe=str(recipe)).notes
    rewritten(pico_llama, tmp_path / "o", packer(4, 32, ordered=True), settings(4, 32))
    with pytest.raises(RecipeError, match="codes from the model as it came"):
        plan_model(str(tmp_path / "o"), scheme="W8A16")


@pytest.mark.chain
def test_layers_that_no_pass_rounds_keep_their_codes(pico_llama: Path, tmp_path: Path) -> None:
    weights = rewritten(pico_llama, tmp_path / "m", packer(4, 32, symmetric=False), settings(4, 32))
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: rtn, scheme: W8A16-g32, targets: [down], requantize: true}]")
    out = WeightSource.open(compress_model(str(tmp_path / "m"), recipe=str(recipe), output=tmp_path / "o"))
    assert out.schemes[Q].name == "W4A16_ASYM-g32" and out.schemes[DOWN].name == "W8A16-g32"
    assert np.array_equal(out.dense(Q).numpy(), weights[Q])
    assert float((out.dense(DOWN) - torch.from_numpy(weights[DOWN])).abs().max()) < 0.01


Edit = Callable[[dict[str, Part]], None]


def put(part: str, value: Callable[[Part], Part]) -> Edit:
    def edit(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.{part}"] = np.ascontiguousarray(value(tensors[f"{Q}.{part}"]))

    return edit


def drop(part: str) -> Edit:
    def edit(tensors: dict[str, Part]) -> None:
        del tensors[f"{Q}.{part}"]

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (drop("scales"), "no scales"),
        (drop("qzeros"), "no qzeros"),
        (put("scales", lambda old: old[:, :-1]), "do not fit"),
        (put("scales", lambda old: old * np.float16(np.nan)), "not finite"),
        (put("qweight", lambda old: old[:-1]), "do not fit"),
        (put("qweight", lambda old: old[:0]), "of shape"),
        (put("qweight", lambda old: old.astype(np.float32)), "not I32"),
        (put("qzeros", lambda old: old[:, :-1]), "do not fit"),
        (put("qzeros", lambda old: old[:1]), "do not fit"),
        (put("g_idx", lambda old: old + 1), "groups that have no scale"),
        (put("g_idx", lambda old: old - 1), "groups that have no scale"),
        (put("g_idx", lambda old: old[:, None]), "1 dimensions"),
        (put("g_idx", lambda old: old[:1]), "do not fit"),
    ],
)
def test_parts_that_do_not_fit_are_refused(pico_llama: Path, tmp_path: Path, edit: Edit, said: str) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(4, 32), settings(4, 32))
    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m").dense(Q)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"checkpoint_format": "marlin"}, "checkpoint_format 'marlin'"),
        ({"checkpoint_format": "gptq_p"}, "checkpoint_format 'gptq_p'"),
        ({"is_marlin_format": True}, "checkpoint_format"),
        ({"bits": 10**30}, "codes of"),
        ({"bits": "four"}, "no whole number"),
        ({"bits": 5}, "codes of 5 bits"),
        ({"bits": 2}, "do not fit"),
    ],
)
def test_settings_that_are_none_are_refused(
    pico_llama: Path, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(4, 32, index=False), settings(4, 32))
    config = read_json(tmp_path / "m" / "config.json")
    config["quantization_config"] |= more
    write_json(tmp_path / "m" / "config.json", config)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m")
