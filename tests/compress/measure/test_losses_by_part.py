"""Losses of units and of weights: against gradients taken by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edgepress.compress.measure.fisher import FisherPass, direction
from edgepress.compress.measure.reading import last_states
from edgepress.compress.measure.sensitivity import unit_losses, weight_losses
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.terminal import Silent


@pytest.mark.parametrize("model", ["pico_llama", "pico_bert"])
def test_losses_of_units_are_squared_products_with_gradients(
    model: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(model)
    anatomy, device = WeightSource.open(path).anatomy, torch.device("cpu")
    ids = torch.randint(5, 110, (2, 9), generator=torch.Generator().manual_seed(0))
    batch = MicroBatch(0, ids, torch.ones_like(ids), ids.numel())
    block = anatomy.blocks[1]
    names = {block.mlp.down.name: 128, block.attention.o.name: 4}
    network = load_model(path).requires_grad_(False)
    found = unit_losses(
        FisherPass(network, anatomy, [batch], device, Silent(), precision="float32", seed=3), names
    )
    seen: dict[str, torch.Tensor] = {}
    for name in names:

        def keep(_: object, inputs: tuple[torch.Tensor], name: str = name) -> None:
            inputs[0].retain_grad()
            seen[name] = inputs[0]

        network.get_submodule(name).register_forward_pre_hook(keep)  # type: ignore[arg-type]
    rows = last_states(network, batch, device)
    rows.backward(direction(network, anatomy, rows.detach(), torch.Generator().manual_seed(3)))
    share = 0.5 if anatomy.kind == "decoder" else 1.0
    for name, units in names.items():
        x, d = seen[name].detach().flatten(0, 1), seen[name].grad
        assert d is not None
        products = (x * d.flatten(0, 1)).view(len(x), units, -1)
        expected = [
            share * float(sum(row[unit].sum() ** 2 for row in products)) / len(x) for unit in range(units)
        ]
        assert torch.allclose(found[name], torch.tensor(expected), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("model", ["pico_llama", "pico_bert"])
def test_losses_of_weights_are_squared_products_with_gradients(
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
