"""The sweep on a CUDA device: the same results as on the CPU, resumable, and content with little memory."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.skeleton import Skeleton
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.pipeline.capture import block_inputs
from edgepress.compress.pipeline.collect import Side, collect
from edgepress.compress.pipeline.forward import Batch, BatchSplitter, propagate
from edgepress.errors import MissingDependency, OutOfResource
from edgepress.files.hashed_tree import hash_tree

Watched = Callable[..., AbstractContextManager[list[float]]]

pytestmark = pytest.mark.cuda

DEVICE = "cuda"
CALIBRATED: dict[str, Any] = {"samples": 12, "length": 32}
RECIPES = {
    "rtn": "passes: [{pass: rtn, scheme: W4A16-g32}]",
    "rtn-asym": "passes: [{pass: rtn, scheme: W3A16_ASYM-g32}]",
    "w8a8": "passes: [{pass: w8a8}]",
    "magnitude": "passes: [{pass: magnitude, sparsity: 0.5}]",
    "gptq": "passes: [{pass: gptq, scheme: W4A16-g32}]",
    "sparse-gptq": "passes: [{pass: magnitude, sparsity: 0.5}, {pass: gptq, scheme: W4A16_ASYM-g32}]",
}
# Without data the arithmetic is elementwise, but for the error sums that choose a clipping span.
EQUAL = {"rtn": 0.999, "rtn-asym": 0.999, "w8a8": 0.999, "gptq": 0.99, "sparse-gptq": 0.99}


def compress(model: Path, text: Path, recipe: str, device: str, folder: Path) -> Path:
    """``model`` compressed on ``device`` by the recipe called ``recipe``."""
    file = folder / f"{recipe}.yaml"
    file.write_text(RECIPES[recipe] + "\n", encoding="utf-8")
    output, calibration = folder / f"{recipe}-{device}", str(text) if "gptq" in recipe else None
    return compress_model(
        str(model), recipe=str(file), output=output, calibration=calibration, device=device, **CALIBRATED
    )


@pytest.mark.parametrize("recipe", EQUAL)
def test_codes_are_those_of_the_cpu(recipe: str, pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    there, here = (
        WeightSource.open(compress(pico_llama, pico_text, recipe, device, tmp_path))
        for device in (DEVICE, "cpu")
    )
    same = total = 0
    for name in here.schemes:
        mine, theirs = there.linear(name), here.linear(name)
        assert isinstance(mine, QTensor) and isinstance(theirs, QTensor)
        same += int((mine.codes == theirs.codes).sum())
        total += mine.codes.numel()
    assert total > 0 and same / total >= EQUAL[recipe]


def test_pruning_is_that_of_the_cpu(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    there, here = (
        hash_tree(compress(pico_llama, pico_text, "magnitude", device, tmp_path))["model.safetensors"]
        for device in (DEVICE, "cpu")
    )
    assert there == here


@pytest.mark.parametrize("recipe", ["gptq", "w8a8"])
def test_an_encoder_and_its_padding(recipe: str, pico_bert: Path, pico_text: Path, tmp_path: Path) -> None:
    ids = torch.randint(5, 100, (3, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    there, here = (compress(pico_bert, pico_text, recipe, device, tmp_path) for device in (DEVICE, "cpu"))
    with torch.no_grad():
        moved = load_model(there, device=DEVICE)(ids.to(DEVICE), attention_mask=mask.to(DEVICE))
        stayed = load_model(here)(ids, attention_mask=mask)
    real = mask.bool()
    difference = moved.last_hidden_state.cpu()[real] - stayed.last_hidden_state[real]
    assert float(difference.abs().mean()) < 0.02


def test_logits_of_one_checkpoint_agree(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    result = compress(pico_llama, pico_text, "gptq", DEVICE, tmp_path)
    ids = torch.randint(3, 300, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        there = load_model(result, device=DEVICE)(ids.to(DEVICE)).logits.cpu()
        here = load_model(result)(ids).logits
    assert torch.allclose(there, here, atol=1e-3)


def test_resume_gives_the_same_bytes(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    watched: Watched,
) -> None:
    whole = compress(pico_llama, pico_text, "gptq", DEVICE, tmp_path)
    expected = hash_tree(whole)
    (tmp_path / "killed").mkdir()
    with watched("compressing blocks", kill_at=3):
        compress(pico_llama, pico_text, "gptq", DEVICE, tmp_path / "killed")
    assert (tmp_path / "killed" / f".gptq-{DEVICE}.partial" / "work" / "journal.json").exists()
    assert hash_tree(compress(pico_llama, pico_text, "gptq", DEVICE, tmp_path / "killed")) == expected


def test_a_device_that_is_not_there_is_refused(pico_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="not available"):
        compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "o", device="cuda:99")


@pytest.fixture
def wide_block(make_decoder: Callable[..., Path], tmp_path: Path) -> tuple[Any, Any, Any, Batch]:
    """A block whose activations weigh far more than its weights, and eight sequences for it."""
    source = WeightSource.open(make_decoder(tmp_path / "m", intermediate_size=16384, num_hidden_layers=1))
    skeleton, anatomy = Skeleton(source, torch.device(DEVICE)), source.anatomy.blocks[0]
    ids = torch.randint(3, 300, (8, 256), generator=torch.Generator().manual_seed(0))
    with skeleton.embeddings() as model:
        hidden, arguments = block_inputs(skeleton, model, ids.to(DEVICE), None)
    module = skeleton.fill(anatomy.prefix)
    linears = {linear.name: skeleton.submodule(linear.name) for linear in anatomy.linears()}
    return module, linears, anatomy, Batch(hidden, arguments[0], None)


@pytest.fixture
def memory_limit() -> Iterator[Callable[[float], None]]:
    """Sets how many bytes torch may take beyond what is in use on the device; lifted after the test."""
    total = torch.cuda.get_device_properties(0).total_memory

    def limit(spare: float) -> None:
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (held + spare) / total))

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_out_of_memory_halves_the_batch(
    wide_block: tuple[Any, Any, Any, Batch], memory_limit: Callable[[float], None]
) -> None:
    module, linears, anatomy, batch = wide_block
    wanted = {anatomy.mlp.down.name: ("absmean",)}
    side = Side(module, linears, lambda: iter([batch]))
    notes: list[str] = []

    def gather() -> tuple[torch.Tensor, torch.Tensor]:
        smaller = BatchSplitter(notes.append)
        found = collect(side, None, anatomy, wanted, smaller)
        return found[anatomy.mlp.down.name]["absmean"], propagate(module, batch, smaller)

    gather()  # what CUDA's libraries allocate once is allocated now
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    absmean, output = gather()
    needed = torch.cuda.max_memory_allocated() - before
    assert needed > 200e6 and not notes
    memory_limit(0.65 * needed)
    small_absmean, small_output = gather()
    assert any("pieces" in note for note in notes)
    assert torch.allclose(absmean, small_absmean, rtol=1e-4)
    assert torch.allclose(output, small_output, atol=1e-4)
    memory_limit(0.05 * needed)
    with pytest.raises(OutOfResource, match="--length"):
        gather()
