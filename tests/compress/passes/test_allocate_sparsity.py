"""``allocate_sparsity``: the budget holds, fragile layers keep more, and what makes no sense is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.measure.fisher import FisherPass, direction
from edgepress.compress.measure.reading import last_states
from edgepress.compress.measure.removal_loss import weight_losses
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes.allocate_sparsity import loss_at
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.errors import RecipeError
from edgepress.storage import hash_tree, read_json
from edgepress.terminal import Silent

CALIBRATED: dict[str, Any] = {"samples": 16, "length": 32}


def run(model: Path, text: Path, folder: Path, *passes: dict[str, Any], name: str = "o") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "passes": list(passes)}))
    return compress_model(
        str(model), recipe=str(path), output=folder / name, calibration=str(text), **CALIBRATED
    )


@pytest.mark.parametrize("model", ["pico_llama", "pico_bert"])
def test_losses_are_squared_products_of_gradients_and_weights(
    model: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(model)
    anatomy, device = WeightSource.open(path).anatomy, torch.device("cpu")
    ids = torch.randint(5, 110, (2, 5), generator=torch.Generator().manual_seed(0))
    batch = MicroBatch(0, ids, torch.ones_like(ids), ids.numel())
    name = anatomy.blocks[1].mlp.up.name
    network = load_model(path).requires_grad_(False)
    found = weight_losses(
        FisherPass(network, anatomy, [batch], device, Silent(), precision="float32", seed=3), [name]
    )
    module = network.get_submodule(name)
    seen: list[torch.Tensor] = []

    def keep(_: object, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        output.retain_grad()
        seen.extend([inputs[0].detach(), output])

    module.register_forward_hook(keep)  # type: ignore[arg-type]
    rows = last_states(network, batch, device)
    rows.backward(direction(network, anatomy, rows.detach(), torch.Generator().manual_seed(3)))
    x, d = seen[0].flatten(0, 1), seen[1].grad
    assert d is not None
    weight = module.get_parameter("weight").detach()
    single = [torch.outer(one, other) * weight for one, other in zip(d.flatten(0, 1), x, strict=True)]
    share = 0.5 if anatomy.kind == "decoder" else 1.0
    expected = share * torch.stack(single).square().mean(0)
    assert torch.allclose(found[name], expected, rtol=1e-3, atol=1e-12)


def test_losses_add_up_from_the_least() -> None:
    losses = torch.tensor([[3.0, 1.0], [0.5, 2.0]])
    assert loss_at(losses, [0, 1, 2, 4]) == [0.0, 0.5, 1.5, 6.5]


@pytest.mark.parametrize("using", ["magnitude", "wanda", "sparsegpt", "alps"])
def test_the_budget_holds(using: str, pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    step = {"pass": "allocate_sparsity", "sparsity": 0.5, "using": {"pass": using}}
    out = run(pico_llama, pico_text, tmp_path, step)
    source, details = WeightSource.open(out), read_json(out / "edgepress.json")["steps"][0]["details"]
    zeros = total = 0
    for linear in source.anatomy.linears():
        weight = source.dense(linear.name)
        share = float((weight == 0).float().mean())
        assert share == pytest.approx(details["shares"][linear.name], abs=0.02)
        zeros, total = zeros + int((weight == 0).sum()), total + weight.numel()
    assert zeros / total == pytest.approx(details["sparsity"], abs=0.01) and zeros / total >= 0.495
    assert len(set(details["shares"].values())) > 1


def test_a_layer_that_matters_little_gives_most(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    model = make_decoder(tmp_path / "m", num_hidden_layers=2)
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] *= 1e-3
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    step = {"pass": "allocate_sparsity", "sparsity": 0.5, "using": {"pass": "magnitude"}}
    first, again = (run(model, pico_text, tmp_path, step, name=name) for name in ("first", "again"))
    shares = read_json(first / "edgepress.json")["steps"][0]["details"]["shares"]
    for part in ("gate", "up", "down"):
        assert shares[f"model.layers.1.mlp.{part}_proj"] == pytest.approx(0.7)
    assert hash_tree(first) == hash_tree(again)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"using": {"pass": "rtn"}}, "per_layer"),
        ({"using": {"pass": "wanda", "sparsity": 0.3}}, "but sparsity"),
        ({"using": {"pass": "wanda", "pattern": "2:4"}}, "either sparsity"),
        ({"sparsity": 1.5}, "sparsity"),
    ],
)
def test_what_makes_no_sense_is_refused(
    pico_llama: Path, pico_text: Path, tmp_path: Path, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(RecipeError, match=match):
        run(pico_llama, pico_text, tmp_path, {"pass": "allocate_sparsity", "sparsity": 0.5, **options})
