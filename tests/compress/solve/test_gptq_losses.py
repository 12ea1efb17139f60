"""Losses of codes that GPTQ finds: those of the pass's own codes, and less than of rounding to nearest."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.measure.fisher import Measure
from edgepress.compress.measure.sensitivity import ChangeLosses
from edgepress.compress.model.block_anatomy import BlockAnatomy
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import fit_grid, quantize
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.solve.column_recursion import quantize_in_order
from edgepress.compress.solve.damped_cholesky import factorize
from edgepress.compress.solve.gptq_losses import GptqChangeLosses
from edgepress.compress.solve.group_solving import DAMPING
from edgepress.compress.text.micro_batches import MicroBatch
from torch import Tensor

pytestmark = pytest.mark.chain

Swept = Callable[..., dict[str, Tensor]]
SCHEMES = [Scheme.parse(name) for name in ("W2A16-g32", "W3A16-g32", "W4A16-g32")]


def micro_batches(count: int, seed: int) -> list[MicroBatch]:
    """Of the same few words, so that channels go together."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        ids = torch.randint(3, 12, (4, 24), generator=generator)
        found.append(MicroBatch(number, ids, torch.ones_like(ids), ids.numel()))
    return found


def measure(kind: type[ChangeLosses]) -> Measure:
    """Observers of every linear, to nearest or by GPTQ."""

    def of(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, ChangeLosses]:
        names = [linear.name for linear in block.linears()]
        if kind is GptqChangeLosses:
            return {name: GptqChangeLosses(name, weight(name), SCHEMES) for name in names}
        return {
            name: kind(name, weight(name), [quantize(weight(name), one) for one in SCHEMES]) for name in names
        }

    return of


def by_gptq(weight: Tensor, inputs: Tensor) -> list[QTensor]:
    """As the pass finds codes under the Gram of ``inputs [tokens, in]``."""
    gram = inputs.T @ inputs
    order = torch.sort(gram.diagonal(), descending=True, stable=True).indices
    factor = factorize(gram, DAMPING, order)
    assert factor is not None
    ends = [fit_grid(weight, scheme, "mse", gram.diagonal()) for scheme in SCHEMES]
    return [
        quantize_in_order(weight, *found, factor, order, one)
        for found, one in zip(ends, SCHEMES, strict=True)
    ]


def test_they_are_those_of_codes_found_under_the_gram_of_the_other_text(
    pico_llama: Path, swept: Swept, tmp_path: Path
) -> None:
    asked, other = micro_batches(4, 4), micro_batches(4, 9)
    found = swept(pico_llama, asked, measure(GptqChangeLosses), looked_at=other)
    model = load_model(pico_llama)
    seen: dict[str, list[Tensor]] = {}
    source = WeightSource.open(pico_llama)
    for linear in source.anatomy.linears():
        seen[linear.name] = []
        module = model.get_submodule(linear.name)
        module.register_forward_pre_hook(
            lambda _, inputs, name=linear.name: seen[name].append(inputs[0].flatten(0, 1))
        )
    with torch.no_grad():
        for batch in other:
            model(batch.input_ids, use_cache=False)
    codes = {name: by_gptq(source.dense(name), torch.cat(rows)) for name, rows in seen.items()}

    def same(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, ChangeLosses]:
        names = [linear.name for linear in block.linears()]
        return {name: ChangeLosses(name, weight(name), codes[name]) for name in names}

    shutil.rmtree(tmp_path / "swept")
    wanted = swept(pico_llama, asked, same)
    for name, losses in found.items():
        # A Gram that differs in its last bits may move a code.
        torch.testing.assert_close(losses, wanted[name], rtol=0.05, atol=1e-9)


def test_gptq_loses_less_than_rounding_to_nearest(pico_llama: Path, swept: Swept, tmp_path: Path) -> None:
    asked = micro_batches(4, 4)
    found = swept(pico_llama, asked, measure(GptqChangeLosses), looked_at=micro_batches(4, 9))
    shutil.rmtree(tmp_path / "swept")
    nearest = swept(pico_llama, asked, measure(ChangeLosses))
    # Of the whole model; of one layer chance decides.
    solved, rounded = (torch.stack(list(each.values())).sum(0) for each in (found, nearest))
    assert bool((solved < 0.9 * rounded).all())


def test_without_other_text_they_are_rounded_to_nearest(
    pico_llama: Path, swept: Swept, tmp_path: Path
) -> None:
    asked = micro_batches(2, 4)
    found = swept(pico_llama, asked, measure(GptqChangeLosses))
    shutil.rmtree(tmp_path / "swept")
    nearest = swept(pico_llama, asked, measure(ChangeLosses))
    for name, losses in found.items():
        torch.testing.assert_close(losses, nearest[name])
