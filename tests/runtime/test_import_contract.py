"""A bundle runs with numpy, onnxruntime, tokenizers and jinja2: nothing of the training world is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.chain


FORBIDDEN = (
    "torch",
    "transformers",
    "onnx",
    "safetensors",
    "accelerate",
    "compressed_tensors",
    "huggingface_hub",
)

SCRIPT = """
import sys
for name in {forbidden!r}:
    sys.modules[name] = None
import edgepress.runtime.api as api
model = api.open_bundle({folder!r}, threads=1)
{use}
loaded = [name for name in sys.modules if sys.modules[name] and name.split(".")[0] in {forbidden!r}]
loaded += [name for name in sys.modules if name.startswith(("edgepress.compress", "edgepress.export"))]
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    ("fixture", "use"),
    [
        ("decoder_bundle", "assert model.generate('coins', max_new_tokens=3).token_ids"),
        ("encoder_bundle", "assert model.encode(['river']).shape == (1, 16)"),
    ],
)
def test_a_bundle_runs_without_the_training_world(
    fixture: str, use: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(fixture)
    script = SCRIPT.format(forbidden=FORBIDDEN, folder=str(folder), use=use)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
