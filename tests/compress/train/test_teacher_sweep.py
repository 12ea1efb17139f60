"""A swept teacher says what the whole model says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.measure.reading import read
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes.distill import Distill
from edgepress.compress.passes.qat import Qat
from edgepress.compress.passes.ternary import Ternary
from edgepress.compress.passes.tune import Tune
from edgepress.compress.pipeline.algorithm import float_bytes
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train import teacher_sweep
from edgepress.compress.train.learning import Learning
from edgepress.compress.train.losses.logit_terms import CrossEntropy, LogitDivergence
from edgepress.compress.train.losses.objective import Objective, ask, objective_for
from edgepress.compress.train.losses.state_terms import (
    AttentionMaps,
    HiddenDistance,
    Relations,
    StateDistance,
)
from edgepress.compress.train.students.student import Student
from edgepress.compress.train.teacher_sweep import WEIGHTS, TeacherSweep, whole_bytes
from edgepress.compress.train.train_state import Saved
from edgepress.compress.train.training_options import TrainingOptions
from edgepress.terminal.progress import Silent
from torch import Tensor

CPU = torch.device("cpu")
DECODERS = "llama mistral qwen2 qwen3 gemma gemma2 gpt2 gpt_neox opt phi bitnet mixtral qwen3_moe".split()
ENCODERS = "bert roberta distilbert albert".split()
TOKENS = 120


def micro_batches() -> list[MicroBatch]:
    """Four, one of them with padding."""
    found = []
    for number, length in enumerate((11, 16, 9, 12)):
        ids = torch.randint(5, 100, (2, length), generator=torch.Generator().manual_seed(number))
        mask = torch.ones_like(ids)
        mask[1, 7 if number == 1 else length :] = 0
        found.append(MicroBatch(number, ids, mask, int(mask.sum())))
    return found


def same_as_whole(path: Path, objective: Objective) -> None:
    """In groups of one, two and all micro-batches."""
    model, source = load_model(path), WeightSource.open(path)
    expected = [ask(objective, model, batch, CPU) for batch in micro_batches()]
    with Silent().task("", 4) as task:
        found = list(TeacherSweep(source, objective, CPU).answers(micro_batches(), task))
    assert [batch.number for batch, _ in found] == [0, 1, 2, 3]
    for (_, answers), wanted in zip(found, expected, strict=True):
        assert answers.keys() == wanted.keys() and answers
        for name, tensor in wanted.items():
            torch.testing.assert_close(answers[name], tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", [*DECODERS, *ENCODERS])
def test_answers_are_those_of_the_whole_model(
    model_type: str,
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    path = (make_encoder if model_type in ENCODERS else make_decoder)(tmp_path / "m", model_type)
    same_as_whole(path, objective_for(WeightSource.open(path).anatomy, 1_000_000))


@pytest.mark.parametrize("tokens", [1, 150, 1 << 20])
def test_states_inside_of_blocks_are_read_in_groups_of_any_size(
    tokens: int, pico_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_sweep, "AT_ONCE", tokens)
    anatomy = WeightSource.open(pico_llama).anatomy
    pairs = {f"model.layers.{index}": f"model.layers.{index}" for index in range(len(anatomy.blocks))}
    terms: tuple[Any, ...] = (
        StateDistance(),
        HiddenDistance(pairs, (anatomy.hidden_size, anatomy.hidden_size), 0, CPU),
        Relations(anatomy, anatomy, 2),
        AttentionMaps(anatomy, anatomy),
        LogitDivergence("forward_kl", 1_000_000, None),
    )
    same_as_whole(pico_llama, Objective(tuple((1.0, term) for term in terms)))
    same_as_whole(pico_llama, Objective(((1.0, CrossEntropy(None)),)))


@pytest.mark.chain
def test_a_quantized_teacher_answers_as_it_is_stored(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    path = compress_model(str(pico_llama), scheme="W8A8", output=tmp_path / "o")
    same_as_whole(path, objective_for(WeightSource.open(path).anatomy, 1_000_000))


def test_blocks_compute_in_the_precision_of_the_student(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Answers differ from float32's by what bfloat16 rounds, and logits keep their 24 bits."""
    source = WeightSource.open(make_decoder(tmp_path / "m", "llama"))
    objective = objective_for(source.anatomy, 1_000_000)
    found = []
    for precision in ("float32", "bfloat16"):
        with Silent().task("", 4) as task:
            sweep = TeacherSweep(source, objective, CPU, precision)
            found.append([answers for _, answers in sweep.answers(micro_batches(), task)])
    for exact, rounded in zip(*found, strict=True):
        for name, tensor in exact.items():
            assert rounded[name].dtype == torch.float32
            assert not torch.equal(rounded[name], tensor)
            torch.testing.assert_close(rounded[name], tensor, rtol=0, atol=0.1)


def kept_by_autograd(source: WeightSource) -> int:
    """Bytes that a forward pass of ``TOKENS`` tokens keeps for the way back, weights left out."""
    student, kept = Student(source, CPU), {}
    student.learn_weights(list(source.anatomy.linears()), Masks())
    sizes = {linear.out_features * linear.in_features for linear in source.anatomy.linears()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() >= TOKENS and tensor.numel() not in sizes:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.randint(3, 60, (1, TOKENS))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states = read(student.model, MicroBatch(0, ids, torch.ones_like(ids), TOKENS), CPU)
    assert states
    return sum(kept.values())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_activations_are_those_that_autograd_keeps(
    make_decoder: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    source = WeightSource.open(make_decoder(tmp_path / "m", family))
    more, less = (
        whole_bytes(source, TrainingOptions(precision="float32", micro_batch_tokens=tokens), 1)
        for tokens in (2 * TOKENS, TOKENS)
    )
    assert 0.8 < kept_by_autograd(source) / (more - less) < 1.2


def test_copies_and_a_teacher_that_stays_are_counted(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    source = WeightSource.open(make_decoder(tmp_path / "m", "llama"))
    weights = sum(map(float_bytes, source.anatomy.linears()))
    plain, stays, thin = TrainingOptions(), TrainingOptions(cache=False), TrainingOptions(checkpointing=True)
    one = whole_bytes(source, plain, 1)
    assert whole_bytes(source, plain, WEIGHTS) - one == (WEIGHTS - 1) * weights
    assert whole_bytes(source, stays, 1) - one >= weights
    assert whole_bytes(source, thin, 1) < one


@pytest.mark.chain
@pytest.mark.parametrize(
    ("first", "kind", "options"),
    [
        ("W2A16-g16", Tune, {}),
        ("W2A16-g16", Tune, {"learn": ["scales", "embedding"]}),
        ("W2A16-g16", Qat, {"embedding": True}),
        (None, Ternary, {"group_size": 32}),
        (None, Distill, {"train": "lora", "rank": 8}),
        (None, Distill, {}),
    ],
)
def test_the_saved_state_is_as_large_as_planned(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    recipe: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    first: str | None,
    kind: type[Learning],
    options: dict[str, Any],
) -> None:
    sizes: list[int] = []

    def write(self: Saved, step: int, data: dict[str, Any]) -> None:
        kept(self, step, data)
        sizes.append(self.path.stat().st_size)

    kept = Saved.write
    monkeypatch.setattr(Saved, "write", write)
    name, short = kind.__name__.lower(), {"batch_tokens": 64, "micro_batch_tokens": 64, "epochs": 1}
    steps = [] if first is None else [{"pass": "rtn", "scheme": first}]
    steps.append({"pass": name, "training": short, **options})
    compress_model(
        str(pico_llama),
        recipe=recipe(tmp_path, *steps),
        output=tmp_path / "o",
        calibration=str(pico_text),
        samples=8,
        length=32,
    )
    anatomy = WeightSource.open(pico_llama).anatomy
    scales = sum(linear.out_features * linear.in_features // 16 for linear in anatomy.linears())
    learning = kind(training={**short, "cache": False}, **options)
    planned, at_end = (
        size(anatomy, 256, scales) for size in (learning.disk_bytes, learning.disk_bytes_at_end)
    )
    # Names, norms and the form of the file are as large as this model.
    assert planned <= 2 * max(sizes) < 1.1 * planned + 150_000
    # Once it has learned, the best numbers alone are kept while the result is written.
    assert at_end <= sizes[-1] < 1.1 * at_end + 75_000 and sizes[-1] < 0.5 * max(sizes)
