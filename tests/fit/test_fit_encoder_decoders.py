"""``fit`` on encoder–decoders: budgets hold as measured on pairs; what it has no figures for is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import hash_tree
from edgepress.fit import search as search_module
from edgepress.runtime.bundle.bundle import Bundle

from ..conftest import WORDS

pytestmark = pytest.mark.chain

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``edgepress fit`` of a model on a text, rounded alone and once, into ``tmp_path / "o"``."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search_module, "METHODS", search_module.METHODS[:1])
    monkeypatch.setattr(search_module, "ROUNDS", 1)

    def call(model: Path, text: Path, *arguments: str) -> int:
        given = ["--text", str(text), "--samples", "16", "--length", "32", "--threads", "1", "--json"]
        return run(["fit", str(model), *given, "-o", str(tmp_path / "o"), *arguments])

    return call


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of unequal lengths: an output is words of its input."""
    generator = np.random.default_rng(5)
    rows = []
    for number in range(72):
        words = list(generator.choice(WORDS, generator.integers(4, 24)))
        rows.append({"input": " ".join([*words, str(number)]), "output": " ".join(words[::-2])})
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def found_by(capsys: Capture) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("table")
def test_all_budgets_hold_and_the_recipe_repeats_it(
    fit: Callable[..., int], pico_t5: Path, pairs: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert fit(pico_t5, pairs, "--max-disk", "1GB", "--dry-run") == 0
    bound = round(1.2 * found_by(capsys)["smallest"])
    budgets = ["--max-disk", f"{bound}B", "--max-memory", "2GB", "--max-kl", "0.5", "--min-decode", "1"]
    assert fit(pico_t5, pairs, *budgets, "--max-first-token", "20s") == 0
    found, out = found_by(capsys), tmp_path / "o"
    assert (found["judged"], found["objective"]) == ("KL", "KL")
    bundle = Bundle.open(out / "bundle")
    assert bundle.kind == "encoder_decoder" and bundle.disk_bytes == found["measured"]["disk"] <= bound
    assert 0 <= found["measured"]["KL"] <= 0.5 >= found["held_out"]["KL"] >= 0
    assert 5e7 < found["measured"]["memory on here"] <= 2e9
    assert found["measured"]["decode on here"] >= 1 and found["measured"]["first token on here"] <= 20
    first = found["trials"][0]
    assert first["predicted"]["disk"] == pytest.approx(first["measured"]["disk"], rel=0.1)
    recipe, text = str(out / "recipe.yaml"), str(out / "calibration.jsonl")
    assert '"target"' in Path(text).read_text()
    again = compress_model(str(pico_t5), recipe=recipe, calibration=text, output=tmp_path / "again")
    made = Bundle.open(export_bundle(again, output=tmp_path / "b"))
    differ = frozenset({"manifest.json", "README.md", "bom.cdx.json"})  # they name the run
    assert hash_tree(bundle.path, skip=differ) == hash_tree(made.path, skip=differ)


@pytest.mark.parametrize(
    "family", ["bart", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mt5", "marian"))]
)
def test_the_smallest_that_keeps_a_kl(
    family: str,
    fit: Callable[..., int],
    make_encoder_decoder: Callable[..., Path],
    pairs: Path,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family, own_head=family == "mt5")
    assert fit(model, pairs, "--max-kl", "2") == 0
    found = found_by(capsys)
    assert (found["judged"], found["objective"]) == ("KL", "disk")
    assert 0 < found["measured"]["KL"] <= 2 >= found["held_out"]["KL"]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (
            ["--min-cosine", "0.9"],
            "its budgets are --max-disk, --max-memory, --min-decode",
        ),
        (["--max-slice-kl", "people=0.1"], "has no such figure"),
        (["--min-sentences", "3"], "has no such figure"),
    ],
)
@pytest.mark.usefixtures("table")
def test_budgets_of_other_kinds_are_refused(
    budget: list[str], said: str, fit: Callable[..., int], pico_t5: Path, pairs: Path, capsys: Capture
) -> None:
    assert fit(pico_t5, pairs, *budget) == 2
    assert said in capsys.readouterr().out
