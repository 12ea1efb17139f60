"""What trials have in common: slices that a budget bounds are calibrated with, where text is read at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from edgepress.fit.asked.texts import Texts
from edgepress.fit.budgets import parse
from edgepress.fit.quantities import SLICE_KL
from edgepress.fit.setting import Setting

GPTQ, RTN = ({"passes": [{"pass": name, "scheme": "W4A16-g32"}]} for name in ("gptq", "rtn"))


@pytest.mark.parametrize(
    ("budgets", "recipe", "protected"),
    [
        ("people=0.3,languages=0.2", GPTQ, ["people", "languages"]),
        ("syntax=0.3", GPTQ, []),  # it keeps no text for calibration
        ("people=0.3", RTN, []),
    ],
)
def test_slices_of_budgets_are_protected_where_text_is_read(
    budgets: str, recipe: dict[str, Any], protected: list[str], tmp_path: Path
) -> None:
    for name in ("development", "held-out"):
        (tmp_path / name).write_text("text", encoding="utf-8")
    texts = Texts("wikipedia", tmp_path / "development", tmp_path / "held-out")
    plain = Setting("m", "fingerprint", texts, {}, 1, [])
    setting = Setting("m", "fingerprint", texts, {}, 1, parse(SLICE_KL, budgets, []))
    assert [one.name for one in setting.protected(recipe)] == protected
    assert (setting.key_of(recipe) == plain.key_of(recipe)) == (not protected)
