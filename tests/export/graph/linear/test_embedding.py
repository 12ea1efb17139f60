"""Embedding and head: looked up and multiplied exactly, from one initializer when they are tied."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.table_rounding import quantize_table
from edgepress.compress.numbers.table_scheme import rows_of, table_scheme
from edgepress.errors import ShapeError
from edgepress.export.graph.linear.embedding import embed, head

VOCAB, HIDDEN = 40, 96
IDS = np.array([[0, 39, 7], [7, 1, 20]], np.int64)


def source_of(matrices: Any, scheme: str | None, *, tied: bool, hidden: int = HIDDEN) -> Any:
    generator = torch.Generator().manual_seed(1)
    tensors = {"emb.weight": torch.randn(VOCAB, hidden, generator=generator)}
    if not tied:
        tensors["lm_head.weight"] = torch.randn(VOCAB, hidden, generator=generator)
    source = matrices(tensors, {}, SimpleNamespace(blocks=(), embedding="emb", head="lm_head", tied=tied))
    source.embedding_scheme = None if scheme is None else table_scheme(scheme)
    return source


def table(source: Any, module: str) -> np.ndarray:
    weight = source.table(module)
    return (weight if isinstance(weight, torch.Tensor) else weight.dequantize()).numpy()


SCHEMES = [
    None,
    "W8A16-g32",
    "W8A16_ASYM-g32",
    "W4A16-g16",
    "W4A16_ASYM-g32",
    "W2A16_ASYM-g32",
    "W3A16-g48",
    "W5A16_ASYM-g32",
    "W6A16-g16",
    "W8A16-channel",
]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tied", [True, False])
def test_lookup_then_head(
    scheme: str | None, tied: bool, matrices: Any, one_operation: Callable[..., Any], tmp_path: Any
) -> None:
    source = source_of(matrices, scheme, tied=tied)
    rows = table(source, "emb")[IDS]
    np.testing.assert_array_equal(one_operation(source).run(embed, IDS), rows)
    found = one_operation(source).run(lambda build, ids: head(build, embed(build, ids)), IDS, exact=True)
    np.testing.assert_allclose(found, rows @ table(source, "emb" if tied else "lm_head").T, atol=2e-4)
    large = [
        value
        for value in ir.load(tmp_path / "one.onnx").graph.initializers.values()
        if value.const_value.size >= VOCAB * HIDDEN // 8
    ]
    assert len(large) == (1 if tied else 2)


def test_a_step_reads_the_tied_table_once_and_an_untied_embedding_by_the_row(
    matrices: Any, one_operation: Callable[..., Any]
) -> None:
    for tied in (True, False):
        operation = one_operation(source_of(matrices, "W8A16-g32", tied=tied))
        operation.run(lambda build, ids: head(build, embed(build, ids)), IDS)
        row = HIDDEN + 4 * HIDDEN // 32
        assert sum(operation.build.graph.read_per_token.values()) == row * VOCAB + (0 if tied else row)


@pytest.mark.parametrize(("scheme", "hidden"), [("W8A16-g32", 40), ("W8A16-channel", 20), ("W8A8", 96)])
def test_tables_that_cannot_be_looked_up_are_refused(
    scheme: str, hidden: int, matrices: Any, one_operation: Callable[..., Any]
) -> None:
    source = source_of(matrices, scheme, tied=True, hidden=hidden)
    with pytest.raises(ShapeError, match="emb"):
        one_operation(source).run(embed, IDS)


@pytest.mark.parametrize(
    "scheme", ["W4A16-g16+W3A16-g32@8", "W6A16-g32+W2A16-g32@39", "W5A16-g32+W5A16-g96@1"]
)
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_rare_tokens_are_found_and_multiplied_in_their_own_bits(
    scheme: str, own: bool, tied: bool, matrices: Any, one_operation: Callable[..., Any]
) -> None:
    source = source_of(matrices, scheme, tied=tied)
    for name, tensor in source.tensors.items():
        parts = [quantize(tensor[rows], one) for rows, one in rows_of(source.embedding_scheme, VOCAB)]
        source.tensors[name] = torch.cat([part.dequantize() for part in parts])
    source.table = lambda name: quantize_table(source.tensors[f"{name}.weight"], source.embedding_scheme)
    np.testing.assert_array_equal(table(source, "emb"), source.tensors["emb.weight"].numpy())
    rows = table(source, "emb")[IDS]
    lookup, both = one_operation(source), one_operation(source)
    for operation in (lookup, both):
        operation.build.tiles = operation.build.exact = own
    np.testing.assert_array_equal(lookup.run(embed, IDS), rows)
    found = both.run(lambda build, ids: head(build, embed(build, ids)), IDS, exact=not own)
    np.testing.assert_allclose(found, rows @ table(source, "emb" if tied else "lm_head").T, atol=2e-4)
