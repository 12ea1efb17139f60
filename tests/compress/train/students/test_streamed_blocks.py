"""Streamed blocks: values and gradients of the whole model, with the matrices of one block in memory."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.benchmarks.lab.programs.streamed_gradients import largest_error, of_a_student
from edgepress.compress.api import compress_model
from edgepress.compress.measure.reading import last_states
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.students.student import Student
from edgepress.files.read_ahead import Ahead
from torch import Tensor, nn

pytestmark = pytest.mark.chain

CPU = torch.device("cpu")
DECODERS = "llama mistral qwen2 qwen3 gemma gemma2 gpt2 gpt_neox opt phi bitnet".split()
ENCODERS = "bert roberta distilbert albert".split()


def batch() -> MicroBatch:
    """With padding."""
    ids = torch.randint(5, 100, (2, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    return MicroBatch(0, ids, mask, int(mask.sum()))


def matrices(root: nn.Module) -> int:
    """How many numbers of frozen matrices are in memory."""
    tensors = (*root.parameters(), *root.buffers())
    return sum(one.numel() for one in tensors if one.ndim > 1 and not one.is_meta and not one.requires_grad)


@pytest.mark.parametrize("model_type", [*DECODERS, *ENCODERS])
def test_gradients_are_those_of_the_whole_model(
    model_type: str,
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    make = make_encoder if model_type in ENCODERS else make_decoder
    path = compress_model(
        str(make(tmp_path / "m", model_type)), scheme="W4A16_ASYM-g32", output=tmp_path / "o"
    )
    source = WeightSource.open(path)

    def learn(student: Student) -> None:
        student.learn(("scales", "zero_points", "norms", "biases"))

    expected = of_a_student(source, batch(), learn, streams=False)
    found = of_a_student(source, batch(), learn, streams=True)
    assert expected.keys() == found.keys() and len(found) > 2 * len(source.schemes)
    assert largest_error(found, expected) <= 1e-6


@pytest.mark.parametrize(
    "model_type",
    ["t5", "bart", "whisper", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mt5", "marian"))],
)
def test_gradients_reach_both_stacks(
    model_type: str, make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    """What the decoder reads of the encoder has gradients too, and one table is the embedding of both."""
    path = compress_model(
        str(make_encoder_decoder(tmp_path / "m", model_type)), scheme="W4A16_ASYM-g16", output=tmp_path / "o"
    )
    source = WeightSource.open(path)
    written = torch.randint(5, 30, (2, 7), generator=torch.Generator().manual_seed(1))
    given = {"input_ids": batch().input_ids % 30, "attention_mask": batch().attention_mask}
    if source.anatomy.hearing is not None:
        shape = (2, source.anatomy.hearing.bins, source.anatomy.hearing.frames)
        given = {"input_features": torch.randn(shape, generator=torch.Generator().manual_seed(2))}

    def gradients(*, streams: bool) -> dict[str, Tensor]:
        student: Any = Student(source, CPU, streams=streams)
        student.learn(("scales", "zero_points", "norms", "biases"))
        for _ in range(2):
            logits = student.model(**given, decoder_input_ids=written, use_cache=False).logits
            logits.square().sum().backward()
        found = {
            f"{learned.name} {place}": change.grad
            for learned in student.learned
            for place, change in enumerate(learned.changes)
        }
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    expected, found = gradients(streams=False), gradients(streams=True)
    assert expected.keys() == found.keys() and len(found) > 2 * len(source.schemes)
    assert largest_error(found, expected) <= 1e-5


@pytest.mark.parametrize("kinds", [("norms",), ("norms", "embedding")])
def test_changes_of_low_rank_and_tables_learn_as_in_the_whole_model(
    kinds: Any, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    for tied in (True, False):
        path = make_decoder(tmp_path / f"m{tied}", tie_word_embeddings=tied)
        source = WeightSource.open(path)
        masked = next(source.anatomy.linears())

        class Half(Masks):
            names = frozenset({masked.name})

            def one(self, linear: Any) -> Tensor | None:
                shape = linear.out_features, linear.in_features
                kept = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
                return kept if linear.name in self.names else None

        def learn(student: Student) -> None:
            student.learn_weights(list(source.anatomy.linears()), Half(), rank=2)  # noqa: B023
            student.learn(kinds)
            with torch.no_grad():
                for change in student.changes():
                    change.add_(0.01)

        expected = of_a_student(source, batch(), learn, streams=False)
        found = of_a_student(source, batch(), learn, streams=True)
        assert expected.keys() == found.keys()
        assert largest_error(found, expected) <= 1e-6


def test_one_block_has_matrices_at_a_time(pico_llama: Path, tmp_path: Path) -> None:
    source = WeightSource.open(compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "o"))
    student = Student(source, CPU, streams=True)
    assert student.streamed is not None
    student.streamed.room = 0
    student.learn(("norms",))
    held: list[list[int]] = []
    scales = [matrices(block) for block in student.blocks()]
    for module in student.quantized.values():
        module.register_forward_hook(lambda *_: held.append([matrices(block) for block in student.blocks()]))
    last_states(student.model, batch(), CPU).sum().backward()
    for counts in held:
        assert sum(count > few for count, few in zip(counts, scales, strict=True)) == 1
    assert len(held) > len(student.quantized)  # again on the way back
    assert [matrices(block) for block in student.blocks()] == scales


def test_blocks_stay_for_which_there_is_room(pico_llama: Path, tmp_path: Path) -> None:
    """They are read once, run once in each step, and change no bit of a gradient."""
    source = WeightSource.open(compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "o"))
    found: list[tuple[list[Tensor | None], int, int]] = []
    for room in (0, 500_000, 1 << 30):
        student = Student(source, CPU, streams=True)
        assert student.streamed is not None
        student.streamed.room, read, ran = room, Counter[int](), Counter[int]()
        take = student.streamed.take
        student.streamed.take = lambda index, take=take, read=read: (read.update([index]), take(index))[1]  # type: ignore[misc]
        for place, module in enumerate(student.quantized.values()):
            module.register_forward_hook(lambda *_, place=place, ran=ran: ran.update([place]))  # type: ignore[misc]
        student.learn(("scales", "norms"))
        for _ in range(2):
            last_states(student.model, batch(), CPU).square().sum().backward()
        found.append(([change.grad for change in student.changes()], read.total(), ran.total()))
    none, some, every = found
    for other in (some, every):
        assert all(torch.equal(one, two) for one, two in zip(none[0], other[0], strict=True))
    assert none[1] > some[1] > every[1] == len(source.anatomy.blocks)
    assert none[2] > some[2] > every[2] == 2 * len(source.schemes)


def test_values_stay_where_blocks_are_read_ahead(pico_llama: Path, tmp_path: Path) -> None:
    source = WeightSource.open(compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "o"))
    student = Student(source, CPU, streams=True)
    expected = last_states(student.model, batch(), CPU)
    assert student.streamed is not None
    student.streamed.take = Ahead(student.streamed.take, len(source.anatomy.blocks)).take
    for _ in range(2):
        assert torch.equal(last_states(student.model, batch(), CPU), expected)
