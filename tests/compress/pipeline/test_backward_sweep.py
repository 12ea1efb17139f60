"""The backward sweep: gradients as autograd finds them in the whole model, and kills that leave no trace."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.benchmarks.lab.programs.streamed_gradients import (
    SEED,
    kept,
    largest_error,
    of_autograd,
    of_the_sweep,
    random_batches,
)
from edgepress.compress.model.checkpoint import tensor_check
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.backward_sweep import BackwardSweep
from edgepress.errors import CalibrationError
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json
from edgepress.terminal.progress import Silent
from safetensors.torch import load_file, save_file
from torch import Tensor

CPU = torch.device("cpu")
DECODERS = "llama mistral qwen2 qwen3 gemma gemma2 gpt2 gpt_neox opt phi bitnet olmo2 nemotron".split()
EXPERTS = "mixtral qwen3_moe".split()
ENCODERS = "bert roberta distilbert albert".split()
Watched = Callable[..., AbstractContextManager[list[float]]]


def sweep(path: Path, folder: Path, **options: Any) -> BackwardSweep:
    options = {"precision": "float32", "seed": SEED} | options
    return BackwardSweep(WeightSource.open(path), random_batches(), CPU, Silent(), folder, **options)


def streamed(path: Path, folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    return of_the_sweep(sweep(path, folder, dtype=dtype))


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
    found = streamed(path, tmp_path / "sweep", torch.float64)
    assert {tensor.dtype for tensor in found.values()} == {torch.float64}
    assert largest_error(found, of_autograd(path, random_batches(), torch.float64)) < 1e-6


@pytest.mark.chain
def test_quantized_layers_round_their_inputs_on_the_way(
    pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    path = run(pico_llama, pico_text, tmp_path, {"pass": "rtn", "scheme": "W8A8"})
    found, expected = (
        streamed(path, tmp_path / "sweep", torch.float32),
        of_autograd(path, random_batches(), torch.float32),
    )
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


def test_what_is_not_finite_is_left_out(
    make_decoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Such weights are refused; what they do in a sum stands for other overflows on the way.
    monkeypatch.setattr(tensor_check, "LARGEST", math.inf)
    model = make_decoder(tmp_path / "m", "gpt_neox")
    token = int(random_batches()[0].input_ids[0, 0])
    others = torch.cat([batch.input_ids.flatten() for batch in random_batches()[1:]])
    assert token not in others

    def one(table: Tensor) -> None:
        table[token] = 3e38  # finite, but the mean of a layer norm is not

    found = streamed(poisoned(model, tmp_path / "one", one), tmp_path / "sweep", torch.float32)
    tokens = sum(batch.tokens for batch in random_batches()[1:])
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
        ({"pass": "allocate", "bits": 3.5, "using": {"pass": "rtn"}}, "allocate", (5, 30, 57)),
        pytest.param(
            {"pass": "allocate", "bits": 3.5, "using": {"pass": "rtn"}},
            "allocate",
            (20, 40),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"pass": "narrow", "keep": 0.8, "importance": "taylor"},
            "narrow",
            (36, 44),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"pass": "allocate_sparsity", "sparsity": 0.5},
            "allocate_sparsity",
            (29, 50),
            marks=pytest.mark.slow,
        ),
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
