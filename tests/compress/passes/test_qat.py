"""``qat``: better than the codes it began with, and stored to the bit as it was trained."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.compress.api import compress_model
from edgepress.compress.model.block_anatomy import Linear
from edgepress.compress.model.kv_scheme import tap
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.fake_quant import wrap
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.passes.qat import Qat
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.train.students.lsq_linear import LsqLinear
from edgepress.compress.train.students.rounded_linear import round_cache
from edgepress.compress.train.students.student import Student
from edgepress.errors import TrainingError
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json, sha256_file

Watched = Callable[..., AbstractContextManager[list[float]]]

pytestmark = pytest.mark.chain


IDS = torch.arange(3, 43).view(2, 20)
QAT = {"pass": "qat", "batch_tokens": 64, "piece_tokens": 64, "learning_rate": 0.005, "epochs": 4}


def rtn(scheme: str, **options: Any) -> dict[str, Any]:
    return {"pass": "w8a8"} if scheme == "W8A8" else {"pass": "rtn", "scheme": scheme, **options}


@pytest.mark.parametrize(
    ("scheme", "embedding"),
    [
        pytest.param("W2A16-g32", False, marks=pytest.mark.slow),
        ("W3A16_ASYM-g32", False),
        ("W8A8", False),
        ("W2A16-g32", True),
    ],
)
def test_the_checkpoint_computes_what_training_computed(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    scheme: str,
    embedding: bool,
    monkeypatch: pytest.MonkeyPatch,
    trained: Callable[..., Path],
) -> None:
    students: list[Student] = []
    real = Qat.statuses

    def statuses(self: Qat, student: Student, names: Any) -> Any:
        students.append(student)
        return real(self, student, names)

    monkeypatch.setattr(Qat, "statuses", statuses)
    options = {"precision": "float32", "start": "codes" if scheme == "W8A8" else "original"}
    options |= {"embedding": True} if embedding else {}
    path = trained(pico_llama, tmp_path, pico_text, rtn(scheme), {**QAT, **options})
    name = f"{WeightSource.open(path).anatomy.embedding}.weight"
    tables = [WeightSource.open(model).stored(name) for model in (pico_llama, path)]
    assert torch.equal(*tables) != embedding
    with torch.no_grad():
        trained = students[0].model(IDS, use_cache=False).logits
        assert torch.equal(trained, load_model(path)(IDS, use_cache=False).logits)
    step = read_json(path / "edgepress.json")["steps"][1]
    held_out = step["details"]["held_out"]
    assert step["damage"]["kl"] > 0
    # The start is kept where nothing is better, and 8 bits leave next to nothing to win.
    assert scheme == "W8A8" or min(loss for _, loss in held_out) < held_out[0][1]
    assert step["layers"] == 21 and step["statuses"] == {"ok": 21}


def test_a_teacher_that_stays_says_what_one_that_writes_says(
    pico_llama: Path, pico_text: Path, tmp_path: Path, trained: Callable[..., Path]
) -> None:
    paths = [
        trained(
            pico_llama,
            tmp_path / name,
            pico_text,
            rtn("W2A16-g32"),
            {**QAT, "precision": "float32", **options},
        )
        for name, options in (("written", {}), ("live", {"cache": False}))
    ]
    steps = [read_json(path / "edgepress.json")["steps"][1]["details"] for path in paths]
    assert steps[0]["held_out"] == steps[1]["held_out"]
    assert len({sha256_file(path / "model.safetensors") for path in paths}) == 1


@pytest.mark.parametrize("start", ["codes", "original"])
def test_it_begins_as_the_stage_before_ended(pico_llama: Path, tmp_path: Path, start: str) -> None:
    path = compress_model(str(pico_llama), scheme="W3A16-g32", output=tmp_path / "o")
    source, original = WeightSource.open(path), WeightSource.open(pico_llama)
    student = Student(source, torch.device("cpu"))

    def coded(linear: Linear, mask: torch.Tensor | None) -> LsqLinear:
        tensor = source.linear(linear.name)
        assert isinstance(tensor, QTensor)
        weight = original.dense(linear.name) if start == "original" else None
        return LsqLinear(tensor, None, weight, mask)

    student.learn_codes(lambda linear: True, Masks(), coded)
    student.learn(("scales", "norms", "biases"))
    with torch.no_grad():
        assert torch.equal(student.model(IDS).logits, load_model(path)(IDS).logits)


def test_codes_learn_at_a_rate_of_their_own(
    pico_llama: Path, pico_text: Path, tmp_path: Path, trained: Callable[..., Path]
) -> None:
    first, stay = rtn("W3A16-g32"), {**QAT, "start": "codes", "codes_rate": 1e-6}
    before = WeightSource.open(trained(pico_llama, tmp_path / "a", pico_text, first))
    slow = WeightSource.open(trained(pico_llama, tmp_path / "b", pico_text, first, stay))
    fast = WeightSource.open(
        trained(pico_llama, tmp_path / "c", pico_text, first, {**stay, "codes_rate": 1.0})
    )
    moved, scales = {"slow": 0, "fast": 0}, {"slow": 0, "fast": 0}
    for linear in before.anatomy.linears():
        one = before.linear(linear.name)
        assert isinstance(one, QTensor)
        for name, source in (("slow", slow), ("fast", fast)):
            other = source.linear(linear.name)
            assert isinstance(other, QTensor)
            moved[name] += int((one.codes != other.codes).sum())
            scales[name] += int((one.scale != other.scale).sum())
    assert moved["slow"] == 0 < moved["fast"]
    assert min(scales.values()) > 0


def test_pruned_weights_stay_zero(
    pico_llama: Path, pico_text: Path, tmp_path: Path, trained: Callable[..., Path]
) -> None:
    prune, again = {"pass": "magnitude", "sparsity": 0.5}, rtn("W8A16-g32", targets=["q"], requantize=True)
    first = rtn("W4A16_ASYM-g32", targets=["down", "q"])
    path = trained(pico_llama, tmp_path, pico_text, prune, first, {**QAT, "scheme": "W4A16-g32"}, again)
    source = WeightSource.open(path)
    for linear in source.anatomy.linears():
        assert float((source.dense(linear.name) == 0).float().mean()) >= 0.49, linear.name
    assert {scheme.name for scheme in source.schemes.values()} == {
        "W4A16-g32",
        "W4A16_ASYM-g32",
        "W8A16-g32",
    }


def test_a_killed_run_ends_with_the_same_bytes(
    pico_llama: Path, pico_text: Path, tmp_path: Path, watched: Watched, trained: Callable[..., Path]
) -> None:
    steps = (rtn("W3A16-g32"), {**QAT, "tokens": 800})
    whole = trained(pico_llama, tmp_path / "whole", pico_text, *steps)
    with watched("learning", kill_at=9):
        trained(pico_llama, tmp_path / "killed", pico_text, *steps)
    assert hash_tree(trained(pico_llama, tmp_path / "killed", pico_text, *steps)) == hash_tree(whole)


def test_an_encoder_is_trained_too(
    pico_bert: Path, pico_text: Path, tmp_path: Path, trained: Callable[..., Path]
) -> None:
    path = trained(pico_bert, tmp_path, pico_text, {**QAT, "scheme": "W3A16-g32"})
    step = read_json(path / "edgepress.json")["steps"][0]
    # Over six draws of the weights the ratio is 0.20, with a standard deviation of 0.03.
    assert min(loss for _, loss in step["details"]["held_out"]) < 0.7 * step["details"]["held_out"][0][1]


def test_what_has_no_start_is_refused(
    pico_llama: Path, pico_text: Path, tmp_path: Path, trained: Callable[..., Path]
) -> None:
    with pytest.raises(TrainingError, match="no scheme"):
        trained(pico_llama, tmp_path / "a", pico_text, QAT)
    moved = {"pass": "smoothquant", "alpha": 0.9, "quantize": False}
    with pytest.raises(TrainingError, match="start: codes"):
        trained(pico_llama, tmp_path / "b", pico_text, moved, rtn("W8A16-g32"), QAT)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"observer": "minmax"}, marks=pytest.mark.slow),
        {"observer": "minmax", "start": "codes", "kv": "int8"},
        pytest.param({"activations": "int8", "kv": "int4"}, marks=pytest.mark.slow),
        {"activations": "int4", "weight_decay": 0.1, "schedule": "two_stages"},
    ],
)
def test_observers_activations_and_cache(
    pico_llama: Path, pico_text: Path, tmp_path: Path, options: dict[str, Any], trained: Callable[..., Path]
) -> None:
    path = trained(pico_llama, tmp_path, pico_text, rtn("W2A16-g32"), {**QAT, **options})
    step = read_json(path / "edgepress.json")["steps"][1]
    # The start is kept where nothing is better.
    assert min(loss for _, loss in step["details"]["held_out"]) < step["details"]["held_out"][0][1]
    assert {scheme.name for scheme in WeightSource.open(path).schemes.values()} == {"W2A16-g32"}


@pytest.mark.parametrize("bits", [4, 8])
def test_the_cache_is_rounded_a_token_and_head(pico_llama: Path, bits: int) -> None:
    model, seen = load_model(pico_llama), list[torch.Tensor]()
    anatomy = WeightSource.open(pico_llama).anatomy

    def watch(key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.extend([key, value])
        return key, value

    tap(model.get_submodule(anatomy.blocks[0].attention.module), watch)
    with torch.no_grad():
        model(IDS, use_cache=False)
        round_cache(model, anatomy, bits)  # its tap comes later, and is the one that attention asks
        model(IDS, use_cache=False)
    half = 1 << (bits - 1)
    for states, rounded in zip(seen[:2], seen[2:], strict=True):  # the inputs of the first block are the same
        for row, found in zip(states.flatten(0, -2), rounded.flatten(0, -2), strict=True):
            step = float(row.abs().max()) / (half - 0.5)
            codes = found / step
            assert float((codes - codes.round()).abs().max()) < 1e-3
            assert -half <= int(codes.round().min()) and int(codes.round().max()) < half
            assert float((found - row).abs().max()) <= 0.501 * step


def test_what_onnxruntime_computes_is_what_training_computed(
    pico_llama: Path, pico_text: Path, tmp_path: Path, trained: Callable[..., Path]
) -> None:
    """Kernels round activations to int8, as training does or finer: so much may differ, and no more."""
    passes = (rtn("W4A16-g32"), {**QAT, "activations": "int8"})
    path = trained(pico_llama, tmp_path, pico_text, *passes, embedding=None)
    packed = open_subject(export_bundle(str(path), output=tmp_path / "b"), threads=1)
    found, model = torch.from_numpy(packed.logits(IDS.numpy())), load_model(path)
    with torch.no_grad():
        exact = model(IDS, use_cache=False).logits
        for linear in WeightSource.open(path).anatomy.linears():
            wrap(model, linear.name)
        rounded = model(IDS, use_cache=False).logits

    def apart(one: torch.Tensor) -> float:
        return float((one - exact).square().mean().sqrt())

    assert 0 < apart(found) < 1.5 * apart(rounded) < 0.1 * float(exact.square().mean().sqrt())
