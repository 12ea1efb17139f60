"""The backward sweep: gradients as autograd finds them in the whole model, and kills that leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.measure.fisher import Observer, TakeGradient
from edgepress.compress.measure.reading import last_states
from edgepress.compress.model.anatomy import Anatomy, module_name
from edgepress.compress.model.block_anatomy import BlockAnatomy
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.backward_sweep import BackwardSweep
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.errors import CalibrationError
from edgepress.storage import hash_tree, read_json
from edgepress.terminal import Silent
from safetensors.torch import load_file, save_file
from torch import Tensor

CPU, SEED = torch.device("cpu"), 3
DECODERS = "llama mistral qwen2 qwen3 gemma gemma2 gpt2 gpt_neox opt phi bitnet".split()
EXPERTS = "mixtral qwen3_moe".split()  # torch's products of experts know no float64
ENCODERS = "bert roberta distilbert".split()
Watched = Callable[..., AbstractContextManager[list[float]]]


class Kept:
    """Finds the gradients themselves."""

    def __init__(self, module: str, *, at_input: bool) -> None:
        self.module, self.at_input = module, at_input
        self.rows: list[Tensor] = []

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        return lambda gradient: self.rows.append(gradient[real])

    def found(self, tokens: int, scale: float) -> Tensor:
        return torch.cat(self.rows)


def kept(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> Mapping[str, Observer]:
    """The gradients at the output of a block, of its q, and at the input of its o."""
    q, o = block.attention.projections[0].name, block.attention.o.name
    return {
        block.prefix: Kept(block.prefix, at_input=False),
        q: Kept(q, at_input=False),
        o: Kept(o, at_input=True),
    }


def micro_batches() -> list[MicroBatch]:
    """Three, one of them with padding."""
    found = []
    for number, length in enumerate((11, 16, 9)):
        ids = torch.randint(5, 100, (2, length), generator=torch.Generator().manual_seed(number))
        mask = torch.ones_like(ids)
        mask[1, 7 if number == 1 else length :] = 0
        found.append(MicroBatch(number, ids, mask, int(mask.sum())))
    return found


def sweep(path: Path, folder: Path, **options: Any) -> BackwardSweep:
    options = {"precision": "float32", "seed": SEED} | options
    return BackwardSweep(WeightSource.open(path), micro_batches(), CPU, Silent(), folder, **options)


def streamed(path: Path, folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    files = sweep(path, folder, dtype=dtype).run("gradients", kept)
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def drawn_loss(model: Any, anatomy: Anatomy, batch: MicroBatch, generator: torch.Generator) -> Tensor:
    real = batch.attention_mask.bool()
    if anatomy.kind == "encoder":
        rows = last_states(model, batch, CPU)
        aim = torch.randn(rows.shape, generator=generator) / rows.detach().float().norm(dim=-1, keepdim=True)
        return (rows * aim.to(rows.dtype)).sum()
    logits = model(batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits[real]
    log_probabilities = torch.log_softmax(logits, -1)
    drawn = torch.multinomial(log_probabilities.detach().exp(), 1, generator=generator)
    return log_probabilities.gather(-1, drawn).sum()


def of_autograd(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """The same gradients from the whole model."""
    anatomy, model = WeightSource.open(path).anatomy, load_model(path, dtype=dtype, cache=False)
    watched = {name: one.at_input for block in anatomy.blocks for name, one in kept(block, load).items()}
    found: dict[str, list[Tensor]] = {name: [] for name in watched}
    generator = torch.Generator().manual_seed(SEED)
    for batch in micro_batches():
        states: dict[str, Tensor] = {}

        def keep(name: str, states: dict[str, Tensor] = states) -> Any:
            def hook(_: object, inputs: tuple[Tensor, ...], output: Any) -> None:
                result = output[0] if isinstance(output, tuple) else output
                states[name] = inputs[0] if watched[name] else result

            return hook

        modules = {name: model.get_submodule(module_name(anatomy, name)) for name in watched}
        handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
        model.requires_grad_(True)
        loss = drawn_loss(model, anatomy, batch, generator)
        gradients = torch.autograd.grad(loss, [states[name] for name in watched])
        for handle in handles:
            handle.remove()
        for name, gradient in zip(watched, gradients, strict=True):
            found[name].append(gradient[batch.attention_mask.bool()])
    return {name: torch.cat(rows) for name, rows in found.items()}


def load(name: str) -> Tensor:
    raise AssertionError(f"nothing here reads the weight of {name}")


@pytest.mark.parametrize("model_type", [*DECODERS, *EXPERTS, *ENCODERS])
def test_gradients_are_those_of_autograd_in_the_whole_model(
    model_type: str,
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    path = (make_encoder if model_type in ENCODERS else make_decoder)(tmp_path / "m", model_type)
    dtype, most = (torch.float32, 1e-4) if model_type in EXPERTS else (torch.float64, 1e-6)
    found = streamed(path, tmp_path / "sweep", dtype)
    for name, expected in of_autograd(path, dtype).items():
        error = float((found[name] - expected).norm() / expected.norm())
        assert found[name].dtype == dtype and error < most, name


@pytest.mark.chain
def test_quantized_layers_round_their_inputs_on_the_way(
    pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    path = run(pico_llama, pico_text, tmp_path, {"pass": "rtn", "scheme": "W8A8"})
    found, expected = streamed(path, tmp_path / "sweep", torch.float32), of_autograd(path, torch.float32)
    for name in (block.prefix for block in WeightSource.open(path).anatomy.blocks):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)


def poisoned(path: Path, folder: Path, rows: Callable[[Tensor], None]) -> Path:
    """The model with an embedding that ``rows`` has changed."""
    folder.mkdir()
    for file in path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    rows(tensors["gpt_neox.embed_in.weight"])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_what_is_not_finite_is_left_out(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    model = make_decoder(tmp_path / "m", "gpt_neox")
    token = int(micro_batches()[0].input_ids[0, 0])
    others = torch.cat([batch.input_ids.flatten() for batch in micro_batches()[1:]])
    assert token not in others

    def one(table: Tensor) -> None:
        table[token] = 3e38  # finite, but the mean of a layer norm is not

    found = streamed(poisoned(model, tmp_path / "one", one), tmp_path / "sweep", torch.float32)
    tokens = sum(batch.tokens for batch in micro_batches()[1:])
    assert all(len(rows) == tokens and bool(torch.isfinite(rows).all()) for rows in found.values())

    def all_of_them(table: Tensor) -> None:
        table[:] = 3e38

    with pytest.raises(CalibrationError, match="the model turns every sample"):
        streamed(poisoned(model, tmp_path / "all", all_of_them), tmp_path / "none", torch.float32)


def test_only_what_was_found_stays_and_damage_is_found_again(pico_llama: Path, tmp_path: Path) -> None:
    first = sweep(pico_llama, tmp_path).run("gradients", kept)
    assert {path.name for path in tmp_path.iterdir()} == {"parts", "journal.json"}
    before = hash_tree(tmp_path)
    assert sweep(pico_llama, tmp_path).run("gradients", load) == first  # type: ignore[arg-type]
    first[1].write_bytes(first[1].read_bytes()[:-1] + b"x")
    sweep(pico_llama, tmp_path).run("gradients", kept)
    assert hash_tree(tmp_path) == before


@pytest.mark.chain
@pytest.mark.parametrize(
    ("step", "label", "kills"),
    [
        ({"pass": "allocate", "bits": 3.5, "using": {"pass": "rtn"}}, "allocate", (5, 20, 30, 40, 57)),
        ({"pass": "narrow", "keep": 0.8, "importance": "taylor"}, "narrow", (36, 44)),
        ({"pass": "allocate_sparsity", "sparsity": 0.5}, "allocate_sparsity", (29, 50)),
        (
            {"pass": "block_qat", "scheme": "W4A16-g32", "distance": "fisher", "training": {"epochs": 1}},
            "blockqat",
            (36, 50),
        ),
    ],
)
def test_a_killed_sweep_goes_on_and_ends_with_the_same_bytes(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
    watched: Watched,
    step: dict[str, Any],
    label: str,
    kills: tuple[int, ...],
) -> None:
    if step["pass"] == "allocate":
        step = step | {"schemes": ["W2A16-g32", "W4A16-g32", "W8A16-g32"]}
    with watched(f"measuring for {label}") as whole:
        expected = hash_tree(run(pico_llama, pico_text, tmp_path, step, name="whole"))
    for kill in kills:
        with watched(f"measuring for {label}", kill):
            run(pico_llama, pico_text, tmp_path, step, name=f"killed-{kill}")
        with watched(f"measuring for {label}") as amounts:
            out = run(pico_llama, pico_text, tmp_path, step, name=f"killed-{kill}")
        assert hash_tree(out) == expected
        assert sum(amounts) == sum(whole) and (kill < 9 or amounts[0] > 0), kill
    assert read_json(tmp_path / "whole" / "edgepress.json")
