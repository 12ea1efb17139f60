"""What tests of passes share: a block of one layer, and runs that are watched or killed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.measure.fisher import Measure
from edgepress.compress.model.anatomy import Anatomy
from edgepress.compress.model.block_anatomy import Attention, BlockAnatomy, Linear, Mlp, Norm
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.backward_sweep import BackwardSweep
from edgepress.compress.pipeline.block import Block
from edgepress.compress.solve.group_solving import HALVES
from edgepress.compress.text.calibration import calibration_from
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import ProgressTask, Silent
from safetensors.torch import load_file
from torch import Tensor


def _single_layer_block(weight: Tensor, gram: Tensor) -> tuple[Block, Linear]:
    """A block whose only selected layer is its last; passes see nothing else."""
    out_features, in_features = weight.shape
    linear = Linear("block.down", "down", out_features, in_features, False)
    other = Linear("block.other", "q", 1, 1, False)
    attention = Attention(other, other, other, other, 1, 1, 1)
    norm = Norm("n", "rms", 1e-6)
    anatomy = BlockAnatomy(0, "block", attention, Mlp(None, other, linear, "silu"), norm, norm, "pre")
    module = torch.nn.Linear(in_features, out_features, bias=False)
    module.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    linears = {linear.name: module, other.name: torch.nn.Linear(1, 1, bias=False)}
    inputs = {"gram": gram} | {name: torch.zeros_like(gram) for name in HALVES}
    block = Block(anatomy, module, linears, {linear.name: inputs})
    block.collector = lambda *_: block.statistics
    return block, linear


@pytest.fixture(scope="session")
def layer_block() -> Callable[[Tensor, Tensor], tuple[Block, Any]]:
    """From a weight and the Gram of its inputs, a block and the one linear in it that passes work on."""
    return _single_layer_block


class Killed(BaseException):
    """Ends a run as a kill would: nothing may catch it."""


@contextmanager
def _watched(label: str, kill_at: int | None = None) -> Iterator[list[float]]:
    amounts: list[float] = []

    class Task:
        def __init__(self, own: bool) -> None:
            self.own, self.part = own, 0.0

        def advance(self, amount: float = 1, detail: str = "") -> None:
            self.part += amount
            if self.own and abs(self.part - round(self.part)) < 1e-6:
                amounts.append(round(self.part))
                self.part = 0.0
                if len(amounts) == kill_at:
                    raise Killed

    @contextmanager
    def task(self: Silent, name: str, total: float) -> Iterator[ProgressTask]:
        yield Task(name == label)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Silent, "task", task)
        with nullcontext() if kill_at is None else pytest.raises(Killed):
            yield amounts


Watched = Callable[..., AbstractContextManager[list[float]]]


@pytest.fixture(scope="session")
def watched() -> Watched:
    """``with watched(label, kill_at) as amounts``: by how much the progress called ``label`` advances in the
    run inside, parts of one added up; the run is killed when it does so for the ``kill_at``-th time, if it is
    given. The first advance is by what was there already.
    """
    return _watched


Swept = Callable[..., dict[str, Tensor]]


@pytest.fixture
def swept(tmp_path: Path) -> Swept:
    """``swept(model, micro_batches, measure)``: what a backward sweep with seed 3 finds in float32."""

    def found(
        model: Path, micro_batches: Sequence[MicroBatch], measure: Measure, **more: Any
    ) -> dict[str, Tensor]:
        source, device = WeightSource.open(model), torch.device("cpu")
        options: dict[str, Any] = {"precision": "float32", "seed": 3, **more}
        sweep = BackwardSweep(source, micro_batches, device, Silent(), tmp_path / "swept", **options)
        files = sweep.run("test", measure)
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    return found


@pytest.fixture(scope="session")
def distance() -> Callable[[Path, Path, Path], float]:
    """``distance(model, other, text)``: the KL of next tokens, or of an encoder one less the cosine of the
    states, on 16 sequences of the text as both are calibrated with.
    """

    def found(model: Path, other: Path, text: Path) -> float:
        kind = WeightSource.open(model).anatomy.kind
        size: dict[str, Any] = {"samples": 16, "length": 32, "batch_size": 16, "kind": kind}
        (batch,) = calibration_from(str(text), Tokenizer.open(model), **size).batches
        with torch.no_grad():
            outputs = [
                load_model(path)(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
                for path in (model, other)
            ]
        real = batch.attention_mask.bool()
        if hasattr(outputs[0], "logits"):
            one, two = (output.logits[real].log_softmax(-1) for output in outputs)
            return float((one.exp() * (one - two)).sum(-1).mean())
        return 1 - float(torch.cosine_similarity(*(output[0][real] for output in outputs), dim=-1).mean())

    return found


def drawn_gradient(model: Any, anatomy: Anatomy, rows: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient at the last states ``rows`` of what a backward sweep draws, by autograd."""
    if anatomy.kind == "encoder":
        return torch.randn(rows.shape, generator=generator) / rows.norm(dim=-1, keepdim=True)
    states = rows.clone().requires_grad_(True)
    log_probabilities = torch.log_softmax(model.get_output_embeddings()(states), -1)
    drawn = torch.multinomial(log_probabilities.detach().exp(), 1, generator=generator)
    return torch.autograd.grad(log_probabilities.gather(-1, drawn).sum(), states)[0]


@pytest.fixture(scope="session")
def drawn() -> Callable[..., Tensor]:
    """:func:`drawn_gradient`."""
    return drawn_gradient


def _pruned(weight: Tensor, gram: Tensor, options: Any) -> Tensor:
    block, linear = _single_layer_block(weight, gram)
    options.apply(block)
    block.check("test")
    assert torch.equal(block.masks[linear.name] | (block.weight(linear) == 0), torch.ones_like(weight).bool())
    return block.weight(linear)


@pytest.fixture(scope="session")
def pruned() -> Callable[[Tensor, Tensor, Any], Tensor]:
    """What a pass makes of a layer of this weight ``[out, in]`` with this Gram of its inputs."""
    return _pruned


def _recipe(folder: Path, *passes: dict[str, Any], **more: Any) -> str:
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "passes": list(passes), **more}))
    return str(path)


@pytest.fixture(scope="session")
def recipe() -> Callable[..., str]:
    """``recipe(folder, *passes, **more)``: the path of a recipe, with ``more`` of its keys."""
    return _recipe


@pytest.fixture(scope="session")
def run() -> Callable[..., Path]:
    """``run(model, text, folder, *passes, name="o")``: a model compressed by these passes, calibrated on 16
    sequences of the text.
    """

    def compressed(model: Path, text: Path, folder: Path, *passes: dict[str, Any], name: str = "o") -> Path:
        steps, output = _recipe(folder, *passes), folder / name
        return compress_model(
            str(model), recipe=steps, output=output, calibration=str(text), samples=16, length=32
        )

    return compressed


@pytest.fixture(scope="session")
def trained() -> Callable[..., Path]:
    """``trained(model, folder, text, *passes, **more)``: a model compressed by a recipe that learns from 24
    sequences of the text.
    """

    def compressed(model: Path, folder: Path, text: Path, *passes: dict[str, Any], **more: Any) -> Path:
        folder.mkdir(exist_ok=True)
        steps, output = _recipe(folder, *passes, **more), folder / "o"
        return compress_model(
            str(model), recipe=steps, output=output, calibration=str(text), samples=24, length=32
        )

    return compressed
