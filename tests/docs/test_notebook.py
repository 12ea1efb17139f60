"""The notebook: every cell runs, on a pico model and a few tokens."""

import json
from pathlib import Path
from typing import Any

import edgepress
import pytest
from edgepress.benchmarks.speed.protocol import Protocol

NOTEBOOK = Path(edgepress.__file__).parent / "docs" / "tutorials" / "python-api.ipynb"
SMALL = {
    "windows=4": "windows=2, length=32",
    "profile_bundle(bundle,": "profile_bundle(bundle, **SHORT,",
    "max_new_tokens=32": "max_new_tokens=4",
}


def cells() -> list[str]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def test_it_uses_every_public_function() -> None:
    code = "\n".join(cells())
    assert {name for name in edgepress.__all__ if f"edgepress.{name}" not in code} == set()


@pytest.mark.chain
@pytest.mark.usefixtures("small_roofs")
def test_every_cell_runs(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    protocol = Protocol(blocks=1, warmup_seconds=0)
    short = {"prompt_tokens": 8, "new_tokens": 4, "energy": False, "protocol": protocol}
    names: dict[str, Any] = {"SHORT": short}
    for text in cells():
        said = text.replace('"smollm2"', repr(str(pico_llama))).replace('"wikipedia"', repr(str(pico_text)))
        for whole, small in SMALL.items():
            said = said.replace(whole, small)
        exec(compile(said, str(NOTEBOOK), "exec"), names)
    assert (tmp_path / "notebook-runs" / "report.html").is_file()
