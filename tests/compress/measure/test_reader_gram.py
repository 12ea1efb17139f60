"""The Gram of inputs and how much an error is minded: against gradients taken by hand, padding left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edgepress.compress.measure.fisher import direction
from edgepress.compress.measure.reader_gram import reader_grams
from edgepress.compress.measure.reading import last_states
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.terminal import Silent


@pytest.mark.parametrize("model", ["pico_llama", "pico_bert"])
def test_grams_and_squared_gradients(model: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(model)
    anatomy, device = WeightSource.open(path).anatomy, torch.device("cpu")
    ids = torch.randint(5, 110, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    batch = MicroBatch(0, ids, mask, int(mask.sum()))
    name = anatomy.blocks[0].mlp.down.name
    network = load_model(path).requires_grad_(False)
    found = reader_grams(network, anatomy, [name], [batch], device, Silent(), precision="float32", seed=3)
    seen: list[torch.Tensor] = []

    def keep(_: object, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        output.retain_grad()
        seen.extend([inputs[0].detach(), output])

    network.get_submodule(name).register_forward_hook(keep)  # type: ignore[arg-type]
    rows = last_states(network, batch, device)
    rows.backward(direction(network, anatomy, rows.detach(), torch.Generator().manual_seed(3)))
    x, d = seen[0][mask.bool()], seen[1].grad
    assert d is not None and len(x) == 15
    share = 0.5 if anatomy.kind == "decoder" else 1.0
    gram = torch.stack([torch.outer(row, row) for row in x]).mean(0)
    minding = share * d[mask.bool()].square().mean(0)
    assert torch.allclose(found[name].gram, gram, rtol=1e-4, atol=1e-6)
    assert torch.allclose(found[name].minding, minding, rtol=1e-3, atol=1e-12)
