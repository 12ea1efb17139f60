"""The check of post-training quantization: every row is a recipe, and what is known is not made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.lab.programs import ptq
from edgepress.benchmarks.lab.programs.ptq import (
    Evaluation,
    made,
    measured,
    perplexity_note,
    rows,
    sizes,
    table_row,
)
from edgepress.compress.api import compress_model
from edgepress.compress.recipe import parse
from edgepress.storage import write_json


def test_every_row_is_a_recipe_with_a_label_of_its_own() -> None:
    for row in rows():
        recipe = parse({"name": row.name, "passes": row.passes}, row.name)
        assert [name for name, _ in recipe.steps] == [step["pass"] for step in row.passes]
    assert len({row.label for row in rows()}) == len({row.name for row in rows()}) == len(rows())


class Chain:
    """Makes rows of a pico model without a process of their own."""

    def __init__(self, model: Path, work: Path) -> None:
        self.model, self.work, self.calls = model, work, 0

    def call(self, command: str, threads: int | None = None) -> tuple[float, float]:
        self.calls += 1
        compress_model(str(self.model), scheme="W4A16-g32", output=command.split(" -o ")[1].split()[0])
        return 1.0, 2.0


def test_a_row_is_made_and_measured_once(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ptq, "MODEL", str(pico_llama))
    monkeypatch.setattr(ptq, "LENGTH", 16)
    monkeypatch.setattr(ptq, "texts_from", lambda *_, **__: [pico_text.read_text()])
    chain: Any = Chain(pico_llama, tmp_path)
    row, evaluation = rows()[0], Evaluation(None, tmp_path / "logits")
    for _ in range(2):
        made(chain, row)
        cells = table_row(chain, row, measured(chain, row, evaluation))
    assert chain.calls == 1
    bits, _ = sizes(tmp_path / row.name)
    assert bits == pytest.approx(4.5, rel=0.01)  # and the shape of each weight
    assert (
        cells[0] == row.label
        and cells[1] == f"{bits:.2f}"
        and float(cells[3]) > 0
        and cells[-2:] == ["1", "2"]
    )
    write_json(tmp_path / f"{row.name}.quality.json", {"x": {"kl": 1, "top1_agreement": 0, "perplexity": 7}})
    assert table_row(chain, row, measured(chain, row, evaluation))[3:6] == ["1.000", "0.000", "7.00"]


def test_perplexity_of_eight_bits_has_a_verdict() -> None:
    eight = next(row for row in rows() if row.name == "w8a8-rtn")
    quality = {"a": {"perplexity": 10.04, "original_perplexity": 10.0}}
    assert "+0.40 % on a (target at most +0.5 %: met)" in str(perplexity_note(eight, quality))
    quality["b"] = {"perplexity": 10.06, "original_perplexity": 10.0}
    assert "missed" in str(perplexity_note(eight, quality))
    assert perplexity_note(rows()[-1], quality) is None
