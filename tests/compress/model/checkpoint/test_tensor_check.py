"""Tensors that cannot be weights: NaN and infinity, integer types, parts that lie about each other.

Every place and type is looked at as compress does it (all while they are hashed) and as everything else does
(when a tensor is first read).
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.checkpoint.shards import SINGLE
from edgepress.compress.model.checkpoint.stored_tensors import restored, stored
from edgepress.compress.model.checkpoint.tensor_check import LARGEST, refuse_non_finite
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.errors import CheckpointError, EdgepressError
from edgepress.export.api import export_bundle
from safetensors.torch import load_file, save_file
from torch import Tensor

BLOCK = "model.layers.1."
LINEARS = [*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up"))]
PLACES = [
    *("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
    *(f"{BLOCK}{name}.{part}" for name in LINEARS for part in ("weight", "bias")),
    *(f"{BLOCK}mlp.down_proj.{part}" for part in ("weight", "bias")),
    *(f"{BLOCK}{name}.weight" for name in ("input_layernorm", "post_attention_layernorm")),
    "model.layers.2.mlp.down_proj.weight",
]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


def test_there_are_twenty_places() -> None:
    assert len(set(PLACES)) == 20


@pytest.fixture(scope="module")
def whole(make_decoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a matrix and a bias wherever there can be one."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    return make_decoder(folder, attention_bias=True, mlp_bias=True, tie_word_embeddings=False)


def spoilt(model: Path, folder: Path, place: str, dtype: torch.dtype, *values: float) -> tuple[Path, int]:
    """A copy in ``dtype`` whose tensor ``place`` begins with ``values``; and the size of that tensor."""
    copy = shutil.copytree(model, folder)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(copy / SINGLE).items()}
    wide = tensors[place].to(torch.float64).flatten()
    wide[: len(values)] = torch.tensor(values, dtype=torch.float64)
    tensors[place] = wide.view(tensors[place].shape).to(dtype)
    save_file(tensors, copy / SINGLE, {"format": "pt"})
    return copy, wide.numel()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_are_named_with_their_number(
    dtype: torch.dtype, whole: Path, tmp_path: Path
) -> None:
    for number, place in enumerate(PLACES):
        values = [float("nan"), *([] if dtype.itemsize == 1 else [float("-inf"), float("nan")])]
        folder, size = spoilt(whole, tmp_path / str(number), place, dtype, *values)
        said = (
            f"{place} has {1 if dtype.itemsize == 1 else 2} NaN and {len(values) // 2} Inf of {size} values"
        )
        source = WeightSource.open(folder)
        with pytest.raises(CheckpointError) as caught:
            source.reader.fingerprint()
        assert said in caught.value.what
        with pytest.raises(CheckpointError, match="not finite"):  # asked again, it is said again
            source.reader.fingerprint()
        with pytest.raises(CheckpointError, match="not finite"):
            WeightSource.open(folder).tensor(place)
        WeightSource.open(folder).tensor(PLACES[(number + 1) % len(PLACES)])


def test_all_damage_is_listed_at_once(whole: Path, tmp_path: Path) -> None:
    folder = whole
    for number, place in enumerate(PLACES[:7]):
        folder, _ = spoilt(folder, tmp_path / str(number), place, torch.float32, float("inf"))
    with pytest.raises(CheckpointError, match="and 2 more tensors"):
        CheckpointReader.open(folder).fingerprint()


def test_extremes_of_a_type_are_no_damage(whole: Path, tmp_path: Path) -> None:
    for dtype in DTYPES:
        top = min(torch.finfo(dtype).max, LARGEST)
        folder, _ = spoilt(whole, tmp_path / str(dtype), PLACES[0], dtype, top, -top)
        CheckpointReader.open(folder).fingerprint()
    refuse_non_finite({"none": torch.empty(0), "counts": torch.tensor([1, 2])})


@pytest.mark.parametrize("value", [2e15, 1e38, -3e38])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_no_sum_of_squares_bears_is_refused_with_tensor_and_value(
    dtype: torch.dtype, value: float, whole: Path, tmp_path: Path
) -> None:
    folder, _ = spoilt(whole, tmp_path / "model", PLACES[0], dtype, value)
    said = f"{PLACES[0]} holds a value of magnitude {abs(float(torch.tensor(value, dtype=dtype))):.3g}, "
    with pytest.raises(CheckpointError, match=re.escape(said)):
        CheckpointReader.open(folder).fingerprint()
    with pytest.raises(CheckpointError, match=re.escape(said)):
        WeightSource.open(folder).tensor(PLACES[0])


@pytest.mark.chain
@pytest.mark.parametrize("value", [1e38, 3e38, 9e14])
def test_large_weights_are_refused_or_make_a_whole_result(
    value: float, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "sound", tie_word_embeddings=False)
    folder, _ = spoilt(model, tmp_path / "model", "model.layers.0.mlp.up_proj.weight", torch.float32, value)
    verbs: list[Callable[[], object]] = [
        lambda: compress_model(str(folder), scheme="W8A16", output=tmp_path / "rtn"),
        lambda: compress_model(
            str(folder),
            scheme="W4A16",
            calibration=str(pico_text),
            samples=4,
            length=32,
            output=tmp_path / "g",
        ),
        lambda: export_bundle(folder, output=tmp_path / "onnx"),
    ]
    for verb in verbs:
        try:
            verb()
        except EdgepressError as error:
            assert error.code != "E-INTERNAL"
        else:
            assert value < LARGEST


@pytest.mark.chain
@pytest.mark.parametrize("place", PLACES[:3])
def test_no_verb_makes_anything_of_them(
    place: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "sound", tie_word_embeddings=False)
    folder, _ = spoilt(model, tmp_path / "model", place, torch.float32, float("nan"))
    verbs: dict[str, Callable[[], object]] = {
        "rtn": lambda: compress_model(str(folder), scheme="W8A8", output=tmp_path / "out"),
        "prune": lambda: compress_model(str(folder), recipe=str(recipe), output=tmp_path / "out"),
        "onnx": lambda: export_bundle(folder, output=tmp_path / "out"),
        "unproven": lambda: export_bundle(folder, output=tmp_path / "out", validate=False),
        "gguf": lambda: export_bundle(folder, output=tmp_path / "out", format="gguf"),
        "validate": lambda: open_subject(folder),
    }
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: prune, score: magnitude, sparsity: 0.5}]")
    for verb in verbs.values():
        with pytest.raises(CheckpointError, match=f"{place} has 1 NaN"):
            verb()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "r.yaml", "sound"]


@pytest.mark.parametrize(
    ("place", "dtype"),
    [
        ("model.embed_tokens.weight", torch.int32),
        ("lm_head.weight", torch.int8),
        ("model.norm.weight", torch.bool),
        (f"{BLOCK}mlp.up_proj.weight", torch.uint8),
        (f"{BLOCK}self_attn.q_proj.bias", torch.int64),
    ],
)
def test_weights_of_an_integer_type_are_refused(
    place: str, dtype: torch.dtype, whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    tensors = load_file(folder / SINGLE)
    save_file(tensors | {place: tensors[place].to(dtype)}, folder / SINGLE)
    with pytest.raises(CheckpointError, match=f"'{place}' is stored as"):
        WeightSource.open(folder)


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        (torch.float64, "F64"),
        (torch.float32, "F32"),
        (torch.float16, "F16"),
        (torch.bfloat16, "BF16"),
        (torch.float8_e4m3fn, "F8_E4M3"),
        (torch.int8, None),
        ("F4", None),
    ],
)
def test_the_plan_says_what_is_stored_or_why_not(
    dtype: torch.dtype | str, said: str | None, whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    file, tensors = folder / SINGLE, load_file(folder / SINGLE)
    if isinstance(dtype, str):
        file.write_bytes(file.read_bytes().replace(b'"F32"', b'"F4" ', 1))
    else:
        save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, file)
    if said is None:
        with pytest.raises(EdgepressError):
            plan_model(str(folder), scheme="W8A8")
    else:
        assert plan_model(str(folder), scheme="W8A8").stored == said


def _set(part: str, value: object) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"x.{part}"] = (
            value
            if isinstance(value, Tensor)
            else torch.full_like(
                tensors[f"x.{part}"],
                value,  # type: ignore[arg-type]
            )
        )

    return change


def _first(part: str, value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"x.{part}"] = tensors[f"x.{part}"].clone()
        tensors[f"x.{part}"].view(-1)[0] = value

    return change


PACKED, INTEGER, FLOAT = "pack-quantized", "int-quantized", "float-quantized"
LIES: list[tuple[str, str, Callable[[dict[str, Tensor]], None]]] = [
    ("W4A16-g32", PACKED, _first("weight_scale", float("nan"))),
    ("W4A16-g32", PACKED, _set("weight_scale", torch.ones(8, 2, dtype=torch.int32))),
    ("W4A16-g32", PACKED, _set("weight_shape", torch.tensor([8, 1 << 50]))),
    ("W4A16-g32", PACKED, _set("weight_packed", torch.zeros(8, 4, dtype=torch.int32))),
    ("W4A16_ASYM-g32", PACKED, _set("weight_zero_point", torch.zeros(4, 2, dtype=torch.int32))),
    ("W4A16_ASYM-g32", INTEGER, _first("weight_zero_point", 8)),
    ("W4A16_ASYM-g32", INTEGER, _set("weight_zero_point", torch.zeros(8, 1, dtype=torch.int8))),
    ("W4A16-g32", INTEGER, _first("weight", 100)),
    ("W8A8", INTEGER, _set("weight", torch.zeros(8, 64, dtype=torch.int32))),
    ("W8A8_STATIC", INTEGER, _set("input_scale", 0.0)),
    ("W8A8_STATIC", INTEGER, _set("input_scale", torch.ones(3))),
    ("FP8_DYNAMIC", FLOAT, _set("weight_scale", torch.ones(3, 1))),
    ("FP8_DYNAMIC", FLOAT, _set("weight", torch.zeros(8, 64, dtype=torch.int8))),
    ("MXFP4A16", FLOAT, _first("weight_scale", 255)),
    ("NVFP4A16", FLOAT, _set("weight_global_scale", 0.0)),
    ("NVFP4A16", FLOAT, _set("weight_global_scale", torch.ones(2))),
]


@pytest.mark.parametrize(("name", "form", "lie"), LIES)
def test_parts_of_a_quantized_layer_that_lie(
    name: str, form: str, lie: Callable[[dict[str, Tensor]], None]
) -> None:
    scheme = Scheme.parse(name)
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    made: Any = quantize(weight, scheme)
    if scheme.calibrated:
        from dataclasses import replace

        made = replace(made, input_scale=0.5)
    tensors = stored("x", made, form)
    restored("x", scheme, tensors.__getitem__, form)
    lie(tensors)
    with pytest.raises(EdgepressError):
        restored("x", scheme, tensors.__getitem__, form)
