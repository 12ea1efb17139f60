"""The Fisher information of outputs: of a block, and of a linear beside the Gram of its inputs, against
gradients taken by hand.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.measure.reading import last_states
from edgepress.compress.measure.sensitivity import GramLosses, InputGram, OutputFisher
from edgepress.compress.model.block_anatomy import BlockAnatomy
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.errors import CalibrationError
from torch import Tensor

Swept = Callable[..., dict[str, Tensor]]


def whole(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, OutputFisher]:
    return {block.prefix: OutputFisher(block.prefix, 64)}


def micro_batches() -> list[MicroBatch]:
    ids = torch.randint(3, 100, (2, 24), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 15:] = 0
    return [MicroBatch(0, ids[:1], mask[:1], 24), MicroBatch(1, ids[1:], mask[1:], 15)]


@pytest.mark.chain
def test_it_is_the_mean_outer_product_of_gradients(
    pico_llama: Path, swept: Swept, drawn: Callable[..., Tensor]
) -> None:
    anatomy, model = WeightSource.open(pico_llama).anatomy, load_model(pico_llama, cache=False)
    model.get_input_embeddings().weight.requires_grad_(True)  # type: ignore[operator]
    found = swept(pico_llama, micro_batches(), whole)
    assert list(found) == [block.prefix for block in anatomy.blocks]
    generator = torch.Generator().manual_seed(3)
    expected = [torch.zeros(anatomy.hidden_size, anatomy.hidden_size) for _ in anatomy.blocks]
    for batch in micro_batches():
        real = batch.attention_mask.bool()
        states: list[Tensor] = []
        handles = [
            layer.register_forward_hook(lambda _, __, output, states=states: states.append(output))
            for layer in model.base_model.layers  # type: ignore[union-attr]
        ]
        last = model.base_model(batch.input_ids, batch.attention_mask).last_hidden_state[real]  # type: ignore
        for handle in handles:
            handle.remove()
        gradients = torch.autograd.grad(last, states, drawn(model, anatomy, last.detach(), generator))
        for total, state, gradient in zip(expected, states, gradients, strict=True):
            for one, row in zip(state[real], gradient[real], strict=True):
                total += one.detach().norm() ** 2 * torch.outer(row, row)
    for total, (_, fisher) in zip(expected, found.items(), strict=True):
        total = total / total.diag().mean()
        total = (total + 0.01 * torch.eye(len(total))) / 1.01
        torch.testing.assert_close(fisher, total, rtol=1e-3, atol=1e-4)
        assert float(fisher.diag().mean()) == pytest.approx(1) and float(torch.linalg.eigvalsh(fisher)[0]) > 0


def test_an_encoder_has_one_too(pico_bert: Path, swept: Swept) -> None:
    for fisher in swept(pico_bert, micro_batches(), whole).values():
        assert float(fisher.diag().mean()) == pytest.approx(1) and float(torch.linalg.eigvalsh(fisher)[0]) > 0


@pytest.mark.parametrize("value", [0.0, float("inf")])
def test_gradients_that_say_nothing(
    pico_llama: Path, monkeypatch: pytest.MonkeyPatch, value: float, swept: Swept
) -> None:
    def constant(head: Any, rows: Tensor, generator: Any) -> Tensor:
        return torch.full_like(rows, value)

    monkeypatch.setattr("edgepress.compress.pipeline.backward_sweep.direction", constant)
    if value == 0:
        found = swept(pico_llama, micro_batches(), whole)
        assert all(torch.equal(fisher, torch.eye(64)) for fisher in found.values())
    else:
        with pytest.raises(CalibrationError, match=r"output of model\.layers\.2"):
            swept(pico_llama, micro_batches(), whole)


@pytest.mark.parametrize("model", ["pico_llama", "pico_bert"])
def test_grams_and_squared_gradients_without_padding(
    model: str, request: pytest.FixtureRequest, swept: Swept, drawn: Callable[..., Tensor]
) -> None:
    path: Path = request.getfixturevalue(model)
    anatomy, device = WeightSource.open(path).anatomy, torch.device("cpu")
    ids = torch.randint(5, 110, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    batch = MicroBatch(0, ids, mask, int(mask.sum()))
    name = anatomy.blocks[0].mlp.down.name
    network = load_model(path).requires_grad_(False)
    network.get_input_embeddings().weight.requires_grad_(True)  # type: ignore[operator]
    grams: list[InputGram] = []

    def look(found: InputGram) -> list[float]:
        grams.append(found)
        return [1.0, 2.5]

    def measure(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, GramLosses]:
        return {name: GramLosses(name, weight(name), look)} if block.index == 0 else {}

    assert swept(path, [batch], measure)[name].tolist() == [1.0, 2.5]
    (found,) = grams
    seen: list[torch.Tensor] = []

    def keep(_: object, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        output.retain_grad()
        seen.extend([inputs[0].detach(), output])

    network.get_submodule(name).register_forward_hook(keep)  # type: ignore[arg-type]
    rows = last_states(network, batch, device)
    rows.backward(drawn(network, anatomy, rows.detach(), torch.Generator().manual_seed(3)))
    x, d = seen[0][mask.bool()], seen[1].grad
    assert d is not None and len(x) == 15
    share = 0.5 if anatomy.kind == "decoder" else 1.0
    gram = torch.stack([torch.outer(row, row) for row in x]).mean(0)
    squares = share * d[mask.bool()].square().mean(0)
    assert torch.allclose(found.gram, gram, rtol=1e-4, atol=1e-6)
    assert torch.allclose(found.output_fisher, squares, rtol=1e-3, atol=1e-12)
