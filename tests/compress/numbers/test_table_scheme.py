"""Tables in two parts: a name that reads back, rows on a grid of both schemes, and what is refused."""

from typing import Any

import pytest
import torch
from edgepress.compress.numbers.grid import fit_grid, quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.numbers.table_rounding import in_parts, quantize_table, short_scales
from edgepress.compress.numbers.table_scheme import TableScheme, rows_of, table_scheme
from edgepress.compress.recipe import parse
from edgepress.errors import CheckpointError, EdgepressError, RecipeError
from torch import Tensor

PAIRS = [
    *("W4A16-g16+W3A16-g32@5", "W4A16-g16+W2A16-g16@5", "W6A16-g32+W4A16-g64@39", "W3A16-g16+W3A16-g64@1"),
    *("W5A16-channel+W2A16-channel@20", "W6A16-g16+W6A16-channel@8"),
]


def rounded(scheme: Scheme, dtype: torch.dtype) -> Tensor:
    """Rows ``[40, 64]`` in ``dtype``, each part on a grid of its own."""
    table = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)) * 0.05
    table[::7, :32] *= 0.01  # small codes, which a finer grid holds too
    parts = []
    for rows, own in rows_of(scheme, 40):
        scale = short_scales(fit_grid(table[rows], own, "mse")[0], own, dtype)
        codes = (
            (table[rows].unflatten(1, (scale.shape[1], -1)) / scale[..., None]).round().clamp(*own.code_range)
        )
        parts.append((codes * scale[..., None]).flatten(1))
    return torch.cat(parts).to(dtype)


@pytest.mark.parametrize("name", PAIRS)
def test_the_name_reads_back(name: str) -> None:
    scheme = table_scheme(name)
    assert isinstance(scheme, TableScheme) and scheme.name == name
    assert (
        table_scheme(scheme.name) == scheme == TableScheme.of(scheme.frequent, scheme.rare, scheme.rare_from)
    )
    assert scheme != scheme.frequent and table_scheme(scheme.frequent.name) == scheme.frequent


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_one_grid_holds_both_parts_and_gives_each_back(name: str, dtype: torch.dtype) -> None:
    scheme = table_scheme(name)
    table = rounded(scheme, dtype).float()
    whole = quantize_table(table, scheme)
    assert torch.equal(whole.dequantize(), table)
    parts = in_parts(whole)
    assert [part.scheme for part in parts] == [own for _, own in rows_of(scheme, 40)]
    assert torch.equal(torch.cat([part.dequantize() for part in parts]), table)
    for part in parts:
        low, high = part.scheme.code_range
        assert low <= int(part.codes.min()) and int(part.codes.max()) <= high


def test_one_scheme_is_one_part() -> None:
    table = quantize(torch.randn(8, 32), Scheme.parse("W8A16_ASYM-g32"))
    assert in_parts(table) == [table]


def test_rows_that_are_on_no_grid_of_the_rare_scheme_are_refused() -> None:
    scheme = table_scheme("W4A16-g16+W2A16-g32@20")
    with pytest.raises(CheckpointError, match="not on a grid of W2A16-g32"):
        in_parts(quantize_table(torch.randn(40, 64), scheme))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("W3A16-g32+W4A16-g32@9", "fewer bits"),
        ("W4A16-g32+W3A16-g16@9", "a multiple"),
        ("W4A16-channel+W3A16-g32@9", "a multiple"),
        ("W4A16-g32+W4A16-g32@9", "fewer bits"),
        ("W8A16-g32+W4A16-g32@9", "at most 6 bits"),
        ("W4A16_ASYM-g32+W3A16-g32@9", "symmetric"),
        ("W8A8+W3A16-g32@9", "symmetric"),
        ("W4A16-g32+W3A16-g32@0", "greater than or equal to 1"),
        ("W4A16-g32+W3A16-g32", "from which token"),
        ("W4A16-g32+W3A16-g32@-3", "from which token"),
        ("W4A16-g32+W3A16-g32@٣", "from which token"),
        ("W4A16-g32+W3A16-g32@" + "9" * 5000, "from which token"),
        ("W4A16-g32+W3A16-g7@9", "outside 16–256"),
        ("W4A16-g32+W3A16-g32+W2A16-g32@9", "unknown scheme"),
        ("+@", "from which token"),
    ],
)
def test_what_goes_together_in_no_way_is_refused(name: str, why: str) -> None:
    with pytest.raises(EdgepressError, match=why) as refused:
        table_scheme(name)
    assert len(str(refused.value)) < 700


STEP: dict[str, Any] = {"pass": "embedding", "scheme": "W4A16-g16+W3A16-g32@9"}


def test_a_recipe_keeps_both_schemes() -> None:
    recipe = parse({"passes": [STEP]}, "here")
    assert recipe.embedding == STEP["scheme"] and recipe.tables[0] == table_scheme(STEP["scheme"])
    again = parse(recipe.as_dict(), "here")
    assert again.as_dict() == recipe.as_dict() and again.tables == recipe.tables
    other = parse({"passes": [{**STEP, "scheme": "W4A16-g16+W2A16-g32@9"}]}, "here")
    assert other.sha256 != recipe.sha256


def test_a_recipe_without_the_pass_that_rounds_both_is_refused() -> None:
    linears = {"pass": "rtn", "scheme": "W4A16-g16"}
    for key in ("embedding", "head"):
        with pytest.raises(RecipeError, match="a pass rounds") as refused:
            parse({"passes": [linears], key: STEP["scheme"]}, "here")
        assert "pass: embedding" in refused.value.fix
    with pytest.raises(EdgepressError, match="unknown scheme"):
        parse({"passes": [{"pass": "rtn", "scheme": STEP["scheme"]}]}, "here")
