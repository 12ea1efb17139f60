"""Rounding a table: nearer with scales that are refitted, and still on a grid that exports find again."""

import pytest
import torch
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.numbers.table_rounding import in_parts, quantize_table
from edgepress.compress.numbers.table_scheme import TableScheme
from edgepress.compress.solve import table_solving
from edgepress.compress.solve.refinement import descend
from edgepress.compress.solve.table_solving import round_table
from torch import Tensor


def problem(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A table ``[300, 64]`` and the Hessian of correlated states."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(256, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    table = torch.randn(300, 64, generator=generator) * 0.05
    table[7] = 0
    return table.to(dtype), states.T @ states / len(states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("name", "left"), [("W2A16-g16", 0.95), ("W3A16-g32", 0.97), ("W4A16-g32", 1.0)])
def test_refitted_scales_leave_less_and_are_found_again(
    name: str, left: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, hessian = problem(dtype)
    scheme = Scheme.parse(name)
    refitted = round_table(table, hessian, scheme)
    monkeypatch.setattr(table_solving, "refine", descents_alone)
    assert refitted.error < left * round_table(table, hessian, scheme).error
    change = (refitted.table.float() - table.float()).double()
    whole = ((table.double() @ hessian.double()) * table.double()).sum()
    lost = ((change @ hessian.double()) * change).sum()
    assert refitted.error == pytest.approx(float(lost / whole), rel=1e-3)
    found = quantize_table(refitted.table.float(), scheme).dequantize()
    assert torch.equal(found, refitted.table.float())
    assert bool((refitted.table[7] == 0).all())


def descents_alone(weight: Tensor, hessian: Tensor, tensor: QTensor, rounds: int, **_: object) -> QTensor:
    """What the codes become when the scales stay."""
    for _ in range(rounds):
        tensor = descend(weight, hessian, tensor)
    return tensor


@pytest.mark.parametrize("first", [100, 208])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_are_rounded_each_in_the_scheme_of_its_part(first: int, dtype: torch.dtype) -> None:
    table, hessian = problem(dtype)
    frequent, rare = Scheme.parse("W4A16-g16"), Scheme.parse("W3A16-g32")
    both = TableScheme.of(frequent, rare, first)
    found = round_table(table, hessian, both)
    ones = [round_table(table, hessian, scheme) for scheme in (frequent, rare)]
    assert torch.equal(found.table, torch.cat([ones[0].table[:first], ones[1].table[first:]]))
    assert ones[0].error <= found.error * 1.001 and found.error <= ones[1].error * 1.001
    parts = in_parts(quantize_table(found.table.float(), both))
    assert torch.equal(torch.cat([part.dequantize() for part in parts]), found.table.float())
