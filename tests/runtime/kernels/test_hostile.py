"""Models of one operator whose attributes, types, shapes and contents do not belong together: a result that
does not depend on the instructions, or an error that says what is wrong, and never a crash. ``make
check-kernels`` runs it on a library that stops at the first bad address.
"""

import copy
from random import Random
from typing import Any

import numpy as np
import pytest
from edgepress.runtime.kernels.library import library
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state

from . import test_encoder_operators as encoder
from . import test_operators as good
from . import test_trellis_operators as trellis

pytestmark = pytest.mark.skipif(library() is None, reason="the library of operators was not built here")
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    15,
    16,
    17,
    31,
    32,
    48,
    64,
    1024,
    1025,
    1 << 20,
    1 << 30,
    (1 << 31) - 1,
    1 << 40,
)
NUMBERS += (-(1 << 31), (1 << 63) - 1, -(1 << 63))
TYPES = (np.float32, np.uint8, np.int8, np.int32, np.int64, np.float16)
ERRORS = tuple(
    kind
    for kind in vars(onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)
Array = NDArray[Any]
Model = tuple[str, dict[str, Array | None], int, dict[str, Any]]


def _models() -> list[Model]:
    """One good call of every operator, small enough that most changes of a size meet a limit."""
    found: list[Model] = []
    random = np.random.default_rng(0)
    for bits, zeros, gated in (
        (2, True, 0),
        (3, False, 1),
        (4, True, 1),
        (5, True, 0),
        (6, False, 1),
        (8, False, 0),
    ):
        held = good.matrix(64, 70, bits, 32, zeros)
        x = random.standard_normal((1, 3, 70)).astype(np.float32)
        inputs = {"x": x, "w": held.tiles, "bias": np.ones(64, np.float32)}
        found.append(("QuantizedProduct", inputs, 1, {**held.layout.attributes(), "gated": gated}))
    for bits in trellis.BITS:
        held = trellis.words(64, 72, bits)
        inputs = {"x": random.standard_normal((1, 3, 72)).astype(np.float32), "w": held.tiles}
        found.append(("QuantizedProduct", inputs, 1, {**held.layout.attributes(), "gated": bits % 2}))
    found.append(("RotateInputs", {"x": random.standard_normal((9, 96)).astype(np.float32)}, 1, {"K": 96}))
    several = good.matrix(64, 70, 4, 32, True)
    routed = {
        "x": random.standard_normal((5, 70)).astype(np.float32),
        "w": np.tile(several.tiles, 3),
        "rows": np.array([2, 0, 3]),
    }
    found.append(("RoutedProduct", routed, 1, {**several.layout.attributes(), "gated": 1}))
    held = good.matrix(50, 64, 4, 32, False)
    ids = np.array([[0, 49, 17]], np.int64)
    found.append(("QuantizedRows", {"w": held.tiles, "ids": ids}, 1, held.layout.attributes()))
    for dtype, name in good.NAMES.items():
        for seq in (2, 9):
            queries, cache, rest = good._attention(seq, 2, 5, dtype)
            cache = {key: np.ascontiguousarray(value[:, :, :32]) for key, value in cache.items()}
            rest |= {key: rest[key][:32] for key in ("cos", "sin")}
            slopes = {"positions": None, "slopes": np.ones(good.HEADS, np.float32)} if seq == 9 else {}
            inputs = {**queries, **cache, **rest, **good._scales(dtype), **slopes}
            found.append(
                (f"CachedAttention{name}", inputs, 3, good._attributes(local_window_size=-1, softcap=0.0))
            )
    return found + _encoder_models(random)


def _encoder_models(random: np.random.Generator) -> list[Model]:
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 1]], np.int64)
    ids = np.where(mask == 1, random.integers(3, 99, mask.shape), 1)
    offsets = np.array([0, 4, 7], np.int64)
    held = encoder.IntegerMatrix(50, 64, True)
    x, bias, residual, scale, shift, rows, states, more_states = (
        random.standard_normal(shape).astype(np.float32)
        for shape in ((3, 64), 50, (3, 50), 50, 50, (7, 24), (7, 72), (44, 72))
    )
    product = {"x": x, **held.inputs, "bias": bias, "residual": residual, "scale": scale, "shift": shift}
    heads = {"num_heads": 3, "scale": 0.2}
    more = {"activation": 1, "input_scale": 0.0, "epsilon": 1e-3, "exact": 0}
    summed = {"scale": rows[0], "shift": rows[1], "a": rows, "b": rows, "c": rows[2]}
    unshifted = {name: value for name, value in summed.items() if name != "shift"}
    return [
        ("IntegerProduct", product, 1, {**held.attributes(), **more}),
        ("PackTokens", {"ids": ids, "mask": mask, "types": mask}, 4, {"position_offset": 2}),
        ("UnpackTokens", {"rows": rows, "mask": mask}, 1, {"first": 0}),
        ("PoolTokens", {"rows": rows, "offsets": offsets}, 1, {"first": 0, "unit": 1}),
        ("SumNorm", summed, 1, {"epsilon": 1e-3}),
        ("RootMeanSquareNorm", {"scale": rows[0], "a": rows}, 1, {"epsilon": 1e-3}),
        ("SumRootMeanSquareNorm", unshifted, 2, {"epsilon": 1e-3}),
        ("EncoderEmbeddings", encoder.TABLES, 1, {"epsilon": 1e-3}),
        ("EncoderAttention", {"rows": states, "offsets": offsets}, 1, {**heads, "exact": 1}),
        # Texts of more than 32 tokens, which are computed in integers.
        (
            "EncoderAttention",
            {"rows": more_states, "offsets": np.array([0, 40, 44])},
            1,
            {**heads, "exact": 0},
        ),
    ]


def _other_attribute(random: Random, attributes: dict[str, Any]) -> None:
    if not attributes:
        return
    name = random.choice(sorted(attributes))
    if random.random() < 0.1:
        del attributes[name]
    elif isinstance(attributes[name], float):
        attributes[name] = random.choice((0.0, -1.0, 1e30, float("inf"), float("nan")))
    else:
        changed = random.choice((*NUMBERS, attributes[name] + 1, attributes[name] * 2))
        attributes[name] = min(max(changed, NUMBERS[-1]), -1 - NUMBERS[-1])  # as a model's file can hold it


def _other_shape(random: Random, value: Array) -> Array:
    axis = random.randrange(value.ndim) if value.ndim else 0
    change = random.choice(("flat", "scalar", "more", "empty", "short", "long", "turned", "deep"))
    if change == "flat":
        return value.reshape(-1)
    if change == "scalar":
        return np.zeros((), value.dtype)
    if change == "more":
        return value[None]
    if change == "deep":
        return value.reshape(*(1,) * 7, *value.shape)
    if change == "turned" or not value.ndim:
        return np.ascontiguousarray(value.T)
    count = {"empty": 0, "short": max(value.shape[axis] - 1, 0), "long": value.shape[axis] + 1}[change]
    rows = np.arange(count) % max(value.shape[axis], 1)
    return np.take(value, rows, axis) if value.size else value


def _other_content(random: Random, value: Array) -> Array:
    if not value.size:
        return value
    value = value.copy()
    at = random.randrange(value.size)
    if value.dtype.kind == "f":
        value.reshape(-1)[at] = random.choice((np.nan, np.inf, -np.inf, 0, 6e4, -1e-40))
    else:
        least, most = np.iinfo(value.dtype).min, np.iinfo(value.dtype).max
        value.reshape(-1)[at] = random.choice((least, most, 0, min(32, most), min(33, most), min(65, most)))
    return value


def _other_input(random: Random, inputs: dict[str, Array | None]) -> None:
    name = random.choice(sorted(inputs))
    value = inputs[name]
    if value is None:
        inputs[name] = np.zeros(random.choice(((1,), (2, 3), (0,))), random.choice(TYPES))
    elif random.random() < 0.1:
        inputs[name] = None
    elif random.random() < 0.15:
        inputs[name] = value.astype(random.choice(TYPES))
    else:
        change = random.choice((_other_shape, _other_content))
        inputs[name] = change(random, value)


def _outcome(model: Model) -> list[Array] | str:
    op, inputs, outputs, attributes = model
    try:
        return good.run(op, inputs, outputs, threads=1, **attributes)
    except ERRORS as error:
        return str(error)


def _hostile(models: list[Model], seed: int) -> bool:
    """Whether a changed model still ran."""
    random = Random(seed)
    op, inputs, outputs, attributes = copy.deepcopy(random.choice(models))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if attributes and random.random() < 0.4:
            _other_attribute(random, attributes)
        else:
            _other_input(random, inputs)
    model = op, inputs, outputs, attributes
    found = _outcome(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRESS_KERNELS", "plain")
        plain = _outcome(model)
    if isinstance(found, str) or isinstance(plain, str):
        assert found == plain, (seed, model)
        return False
    for ours, reference in zip(found, plain, strict=True):
        assert np.array_equal(ours, reference, equal_nan=ours.dtype.kind == "f"), (seed, model)
    return True


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "count", [300, pytest.param(6000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_what_does_not_fit_is_refused_or_computed(count: int) -> None:
    models = _models()
    for model in models:
        assert not isinstance(_outcome(model), str)
    ran = sum(_hostile(models, seed) for seed in range(count))
    assert count / 20 < ran < count
