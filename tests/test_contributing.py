"""The guide's examples are used as it says: each is written into a copy of the package and run there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import edgepress
import pytest
import torch
from edgepress.compress.model.weights import WeightSource
from edgepress.export.graph.whole_graph import EXTERNAL_FROM
from edgepress.files.storage import read_json

pytestmark = pytest.mark.chain


ROOT = Path(edgepress.__file__).parent
EXAMPLE = re.compile(
    r"`(?P<name>[\w/.-]+\.(?:py|yaml))`[^\n]*:\n\n(?:<!--[^\n]*-->\n)?```\w+\n(?P<text>.*?)\n```", re.DOTALL
)
EXAMPLE_NAMES = {
    "compress/passes/scaled_magnitude.py",
    "sparse-then-gptq.yaml",
    "compress/model/families/data2vec_text.py",
    "export/formats/onnx_single.py",
    "devices/targets/raspberry-pi-4.yaml",
}


def examples() -> dict[str, str]:
    """Text of each file that the guide and its tutorial show, by the name they give."""
    pages = (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "tutorials" / "add-a-pass.md")
    guide = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return {match["name"]: match["text"] + "\n" for match in EXAMPLE.finditer(guide)}


# One process of the copy for all commands, so that the packages are imported once: it answers each line of
# arguments with the exit code and what was printed.
COMMANDS = """
import contextlib, io, json, sys
from edgepress.cli.entry import run
for line in sys.stdin:
    printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed[0]), contextlib.redirect_stderr(printed[1]):
        code = run(json.loads(line))
    print(json.dumps([code, *(one.getvalue() for one in printed)]), flush=True)
"""


class Copy:
    """A copy of the package with the examples in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.package = folder, folder / "edgepress"
        hidden = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "runs", "*.egg-info", "results")
        shutil.copytree(ROOT, self.package, ignore=hidden)
        for name, text in examples().items():
            place = self.package / name if "/" in name else folder / name
            assert not place.exists(), f"{name} is no example any more: it is part of the package"
            place.write_text(text, encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMANDS],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path) -> Any:
        """The JSON that ``edgepress arguments`` prints, with the copy in the place of the package."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([*map(str, arguments), "--json"]) + "\n")
        self._process.stdin.flush()
        code, out, errors = json.loads(self._process.stdout.readline())
        assert code == 0, out + errors
        return json.loads(out)

    def close(self) -> None:
        """End the process of the commands."""
        self._process.communicate()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    made = Copy(tmp_path_factory.mktemp("guide"))
    yield made
    made.close()


def test_every_example_is_found() -> None:
    assert set(examples()) == EXAMPLE_NAMES


def test_examples_follow_the_house_style(copy: Copy) -> None:
    files = [str(copy.package / name) for name in EXAMPLE_NAMES if name.endswith(".py")]
    settings = ["--config", str(ROOT / "pyproject.toml")]
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, *settings, *files],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_algorithm_prunes_each_row_and_survives_gptq(
    copy: Copy, pico_llama: Path, pico_text: Path
) -> None:
    output = copy.folder / "sparse"
    arguments = ["--calibration", pico_text, "--samples", "8", "--length", "32", "-o", output]
    copy.run("compress", pico_llama, "-r", "sparse-then-gptq.yaml", *arguments)
    assert "scaled-magnitude" in read_json(output / "edgepress.json")["scheme"]
    source = WeightSource.open(output)
    for linear in source.anatomy.linears():
        zeros = (source.dense(linear.name) == 0).sum(1)
        pruned = bool((zeros >= linear.in_features // 2).all())
        assert pruned == (linear.role != "down"), linear.name


def test_the_algorithm_looks_at_the_inputs(copy: Copy, pico_llama: Path, pico_text: Path) -> None:
    """Against plain magnitude, row by row: another choice, of the same size."""
    recipe, output = copy.folder / "alone.yaml", copy.folder / "alone"
    recipe.write_text("passes: [{pass: scaled_magnitude, sparsity: 0.25}]\n", encoding="utf-8")
    arguments = ["--calibration", pico_text, "--samples", "8", "--length", "32", "-o", output]
    copy.run("compress", pico_llama, "-r", recipe, *arguments)
    name = WeightSource.open(pico_llama).anatomy.blocks[0].mlp.down.name
    dense, pruned = (WeightSource.open(path).dense(name) for path in (pico_llama, output))
    gone = pruned == 0
    assert bool((gone.sum(1) == round(0.25 * dense.shape[1])).all())
    smallest = dense.abs().sort(dim=1).indices[:, : round(0.25 * dense.shape[1])]
    assert not torch.equal(gone, torch.zeros_like(gone).scatter_(1, smallest, True))


def test_the_family_passes_its_proof(copy: Copy, make_encoder: Callable[..., Path]) -> None:
    model = make_encoder(copy.folder / "encoder", "data2vec-text")
    copy.run("compress", model, "--scheme", "W8A8", "-o", copy.folder / "encoder-w8a8")
    bundle = copy.run("export", copy.folder / "encoder-w8a8", "-o", copy.folder / "encoder-onnx")
    assert bundle["parity"]["status"] == "passed"


def test_the_format_holds_everything_in_one_file(copy: Copy, make_decoder: Callable[..., Path]) -> None:
    model = make_decoder(copy.folder / "wide", hidden_size=256, intermediate_size=512, num_hidden_layers=1)
    output = copy.folder / "single"
    bundle = copy.run("export", model, "--format", "onnx-single", "-o", output)
    assert bundle["parity"]["status"] == "passed"
    assert (output / "model.onnx").stat().st_size > bundle["weights"]["bytes"] > EXTERNAL_FROM
    assert not (output / "model.onnx.data").exists()
    copy.run("verify", output)


def test_the_target_is_shown_with_its_ceilings(copy: Copy) -> None:
    shown = copy.run("devices", "show", "raspberry-pi-4")
    assert shown["title"] == "Raspberry Pi 4 Model B"
    assert shown["bandwidth"]["value"] == 12.8 and shown["memory"]["confidence"] == "low"
    assert shown["decode_ceiling_tps"]["1 B at 8 bit"] == pytest.approx(12.8e9 / 1.1e9)
