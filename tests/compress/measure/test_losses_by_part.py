"""Losses of units and of weights: against gradients taken by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.measure.reading import last_states
from edgepress.compress.measure.sensitivity import UnitLosses, WeightLosses
from edgepress.compress.model.block_anatomy import BlockAnatomy
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from torch import Tensor

Swept = Callable[..., dict[str, Tensor]]


def _units(names: dict[str, int]) -> dict[str, UnitLosses]:
    return {name: UnitLosses(name, count) for name, count in names.items()}


@pytest.mark.parametrize("model", ["pico_llama", "pico_bert"])
def test_losses_of_units_are_squared_products_with_gradients(
    model: str, request: pytest.FixtureRequest, swept: Swept, drawn: Callable[..., Tensor]
) -> None:
    path: Path = request.getfixturevalue(model)
    anatomy, device = WeightSource.open(path).anatomy, torch.device("cpu")
    ids = torch.randint(5, 110, (2, 9), generator=torch.Generator().manual_seed(0))
    batch = MicroBatch(0, ids, torch.ones_like(ids), ids.numel())
    block = anatomy.blocks[1]
    names = {block.mlp.down.name: 128, block.attention.o.name: 4}
    network = load_model(path).requires_grad_(False)
    network.get_input_embeddings().weight.requires_grad_(True)  # type: ignore[operator]
    found = swept(path, [batch], lambda one, _: _units(names) if one.index == 1 else {})
    seen: dict[str, torch.Tensor] = {}
    for name in names:

        def keep(_: object, inputs: tuple[torch.Tensor], name: str = name) -> None:
            inputs[0].retain_grad()
            seen[name] = inputs[0]

        network.get_submodule(name).register_forward_pre_hook(keep)  # type: ignore[arg-type]
    rows = last_states(network, batch, device)
    rows.backward(drawn(network, anatomy, rows.detach(), torch.Generator().manual_seed(3)))
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
    model: str, request: pytest.FixtureRequest, swept: Swept, drawn: Callable[..., Tensor]
) -> None:
    path: Path = request.getfixturevalue(model)
    anatomy, device = WeightSource.open(path).anatomy, torch.device("cpu")
    ids = torch.randint(5, 110, (2, 5), generator=torch.Generator().manual_seed(0))
    batch = MicroBatch(0, ids, torch.ones_like(ids), ids.numel())
    block = anatomy.blocks[1]
    name = block.mlp.up.name
    network = load_model(path).requires_grad_(False)
    network.get_input_embeddings().weight.requires_grad_(True)  # type: ignore[operator]
    counts = [0, 1, 100, block.mlp.up.out_features * block.mlp.up.in_features]

    def measure(one: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, WeightLosses]:
        return {name: WeightLosses(name, weight(name), counts)} if one.index == 1 else {}

    found = swept(path, [batch], measure)
    module = network.get_submodule(name)
    seen: list[torch.Tensor] = []

    def keep(_: object, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        output.retain_grad()
        seen.extend([inputs[0].detach(), output])

    module.register_forward_hook(keep)  # type: ignore[arg-type]
    rows = last_states(network, batch, device)
    rows.backward(drawn(network, anatomy, rows.detach(), torch.Generator().manual_seed(3)))
    x, d = seen[0].flatten(0, 1), seen[1].grad
    assert d is not None
    weight = module.get_parameter("weight").detach()
    single = [torch.outer(one, other) * weight for one, other in zip(d.flatten(0, 1), x, strict=True)]
    share = 0.5 if anatomy.kind == "decoder" else 1.0
    expected = share * torch.stack(single).square().mean(0)
    least = expected.flatten().double().sort().values
    assert torch.allclose(found[name], torch.stack([least[:n].sum() for n in counts]), rtol=1e-3)
