"""Gradients that stream, a block in memory at a time, against those of autograd in the whole model.

    python -m edgepress.benchmarks.lab.programs.streamed_gradients WORK [RESULTS]

Of every family a model with random weights in float64, and the real ones in float32. Two things stream: the
backward sweep, from which Fisher information and all that is derived from it comes, and the student of what
learns, whose frozen matrices are read when a block runs.
"""

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ....compress.api import compress_model
from ....compress.measure.fisher import Observer, TakeGradient
from ....compress.measure.reading import last_states
from ....compress.model.anatomy import Anatomy, module_name
from ....compress.model.block_anatomy import BlockAnatomy
from ....compress.model.models import resolve
from ....compress.model.torch_model import load_model
from ....compress.model.weights import WeightSource
from ....compress.pipeline.backward_sweep import BackwardSweep
from ....compress.text.micro_batches import MicroBatch
from ....compress.text.probe_text import probe_batches
from ....compress.train.students.student import Student
from ....runtime.text.tokenizer import Tokenizer
from ....terminal.progress import Silent
from ..same_bytes.pico_families import MODELS
from ..same_bytes.pico_kinds import READ_IMAGES, TOWERS, kind_of
from ..same_bytes.pico_models import make_subjects
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.streamed_gradients WORK"
CPU, SEED = torch.device("cpu"), 3
# Of each family that reads text one model; a classifier has the blocks of its encoder.
FAMILIES = tuple(
    name
    for name, (family, _, form) in MODELS.items()
    if not name.startswith("llama-")
    and "labels" not in form
    and kind_of(family) != "encoder_decoder"
    and family not in (*TOWERS, *READ_IMAGES)
)
REAL = ("smollm2", "minilm")
LEARNS: Any = ("scales", "zero_points", "norms", "biases")


class Kept:
    """Finds the gradients themselves."""

    def __init__(self, module: str, *, at_input: bool) -> None:
        self.module, self.at_input = module, at_input
        self.rows: list[Tensor] = []

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        """Keeps the rows of real tokens."""
        return lambda gradient: self.rows.append(gradient[real])

    def found(self, tokens: int, scale: float) -> Tensor:
        """All of them ``[tokens, features]``."""
        return torch.cat(self.rows)


def kept(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> Mapping[str, Observer]:
    """The gradients at the output of a block, of each q, and at the input of each o."""
    attentions = list(block.attentions())
    outputs = [block.prefix, *(one.projections[0].name for one in attentions)]
    return {name: Kept(name, at_input=False) for name in outputs} | {
        one.o.name: Kept(one.o.name, at_input=True) for one in attentions
    }


def random_batches(most: int = 100) -> list[MicroBatch]:
    """Three of tokens below ``most``, one of them with padding."""
    found = []
    for number, length in enumerate((11, 16, 9)):
        ids = torch.randint(5, most, (2, length), generator=torch.Generator().manual_seed(number))
        mask = torch.ones_like(ids)
        mask[1, 7 if number == 1 else length :] = 0
        found.append(MicroBatch(number, ids, mask, int(mask.sum())))
    return found


def of_the_sweep(sweep: BackwardSweep) -> dict[str, Tensor]:
    """By name the gradients ``[tokens, features]`` that :func:`kept` finds."""
    return {name: tensor for file in sweep.run("gradients", kept) for name, tensor in load_file(file).items()}


def of_autograd(path: Path, batches: Sequence[MicroBatch], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same from the whole model."""
    anatomy, model = WeightSource.open(path).anatomy, load_model(path, dtype=dtype, cache=False)
    model.requires_grad_(True)
    watched = {name: one.at_input for block in anatomy.blocks for name, one in kept(block, _none).items()}
    found: dict[str, list[Tensor]] = {name: [] for name in watched}
    generator = torch.Generator().manual_seed(SEED)
    for batch in batches:
        states: dict[str, list[Tensor]] = {name: [] for name in watched}

        def keep(name: str, states: Any = states, shape: Any = batch.attention_mask.shape) -> Any:
            def hook(_: object, inputs: tuple[Tensor, ...], output: Any) -> None:
                result = output[0] if isinstance(output, tuple) else output
                rows = inputs[0] if watched[name] else result
                if rows.shape[:2] == shape:  # DeBERTa's q multiplies its table of positions too
                    states[name].append(rows)

            return hook

        modules = {name: model.get_submodule(module_name(anatomy, name)) for name in watched}
        handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
        loss = _drawn_loss(model, anatomy, batch, generator)
        # Of a block that is repeated the last repetition comes first on the way back.
        calls = [(name, one) for name in watched for one in reversed(states[name])]
        gradients = torch.autograd.grad(loss, [one for _, one in calls])
        for handle in handles:
            handle.remove()
        for (name, _), gradient in zip(calls, gradients, strict=True):
            found[name].append(gradient[batch.attention_mask.bool()])
    return {name: torch.cat(rows) for name, rows in found.items()}


def _none(name: str) -> Tensor:
    raise AssertionError(f"nothing here reads the weight of {name}")


def _drawn_loss(model: Any, anatomy: Anatomy, batch: MicroBatch, generator: torch.Generator) -> Tensor:
    """The loss of :mod:`edgepress.compress.measure.fisher`."""
    real = batch.attention_mask.bool()
    if anatomy.kind == "encoder":
        rows = last_states(model, batch, CPU)
        length: Tensor = rows.detach().float().norm(dim=-1, keepdim=True)
        aim = torch.randn(rows.shape, generator=generator) / length
        return (rows * aim.to(rows.dtype)).sum()
    logits = model(batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits[real]
    log_probabilities = torch.log_softmax(logits, -1)
    drawn = torch.multinomial(log_probabilities.detach().exp(), 1, generator=generator)
    likelihoods: Tensor = log_probabilities.gather(-1, drawn)
    return likelihoods.sum()


def of_a_student(
    source: WeightSource, batch: MicroBatch, learn: Callable[[Student], Any], *, streams: bool
) -> dict[str, Tensor]:
    """Of all that ``learn`` makes learn, the gradients of a sum over logits or states, of two runs."""
    student: Any = Student(source, CPU, streams=streams)
    learn(student)
    for _ in range(2):
        rows = last_states(student.model, batch, CPU)
        head: Any = student.model.get_output_embeddings()
        (rows if head is None else head(rows)).square().sum().backward()
    return {
        f"{learned.name} {place}": change.grad
        for learned in student.learned
        for place, change in enumerate(learned.changes)
        if change.grad is not None
    }


def largest_error(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest distance of a gradient from its expected one, in lengths of that."""
    assert found.keys() == expected.keys()
    apart = (float((found[name] - one).norm() / one.norm()) for name, one in expected.items() if one.any())
    return max(apart)


def _row(
    work: Path, name: str, path: Path, batches: list[MicroBatch], dtype: torch.dtype, scheme: str
) -> list[str]:
    """A line of the table; ``scheme`` is of the weights whose scales learn."""
    folder = work / name
    shutil.rmtree(folder, ignore_errors=True)
    sweep = BackwardSweep(
        WeightSource.open(path),
        batches,
        CPU,
        Silent(),
        folder / "sweep",
        precision="float32",
        seed=SEED,
        dtype=dtype,
    )
    swept = largest_error(of_the_sweep(sweep), of_autograd(path, batches, dtype))
    learned = "–"
    if all(block.experts is None for block in WeightSource.open(path).anatomy.blocks):
        rounded = WeightSource.open(compress_model(str(path), scheme=scheme, output=folder / "rounded"))
        found, expected = (
            of_a_student(rounded, batches[0], lambda student: student.learn(LEARNS), streams=streams)
            for streams in (True, False)
        )
        learned = _figure(largest_error(found, expected))
    tokens = sum(batch.tokens for batch in batches)
    return [name, f"{tokens:,}", str(dtype).removeprefix("torch."), _figure(swept), learned]


def _figure(error: float) -> str:
    return f"{error:.1e}" if error else "0"


def real_batches(path: Path) -> list[MicroBatch]:
    """The probe text as tokens ``[rows, tokens]`` of the model ``path``."""
    text = probe_batches(Tokenizer.open(path), WeightSource.open(path).anatomy.max_positions)
    return [
        MicroBatch(number, batch.input_ids, batch.attention_mask, int(batch.attention_mask.sum()))
        for number, batch in enumerate(text)
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    wanted = parser.parse_args()
    make_subjects(wanted.work, FAMILIES)
    rows = []
    for name in FAMILIES:
        path = wanted.work / "models" / name
        batches = random_batches(WeightSource.open(path).anatomy.vocab_size)
        rows.append(_row(wanted.work, name, path, batches, torch.float64, "W4A16_ASYM-g32"))
    for name in REAL:
        path = resolve(name).path
        rows.append(_row(wanted.work, name, path, real_batches(path), torch.float32, "W4A16_ASYM-g64"))
    write_table(
        wanted.results / "streamed-gradients.md",
        "Gradients that stream against those of the whole model",
        COMMAND,
        ["model", "tokens", "type", "backward sweep against autograd", "what learns, streamed against whole"],
        rows,
        [
            "Relative error of the worst gradient, `‖g − g*‖ ÷ ‖g*‖`: of every block at its output, at the "
            "output of its q, and at the input of its o.",
            "What learns: scales, zero points, norms and biases of the rounded model, in float32; not "
            "measured of mixtures of experts, whose weights another pass rounds. 0: the same to the bit.",
            "The families have random weights; tokens of the real models are of the probe text.",
            "Encoder–decoders are compared in tests/compress/pipeline/test_two_stacks.py; their students do "
            "not stream.",
        ],
    )


if __name__ == "__main__":
    main()
