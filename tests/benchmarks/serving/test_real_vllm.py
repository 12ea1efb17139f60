"""vLLM itself, where it is installed: it opens our checkpoint, and its figures are a line."""

import json
from pathlib import Path

import edgepress
import pytest
from edgepress.benchmarks.serving.contract import engine, executable
from edgepress.cli.entry import run
from edgepress.errors import MissingDependency

pytestmark = [pytest.mark.slow, pytest.mark.chain, pytest.mark.timeout(1800)]


def test_it_serves_a_checkpoint_of_ours(
    pico_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        executable(engine("vllm"))
    except MissingDependency as error:
        pytest.skip(str(error))
    checkpoint = tmp_path / "w4"
    edgepress.compress_model(pico_llama, scheme="W4A16-g32", output=checkpoint)
    words = ["--engine", "vllm", "--concurrency", "1,4", "--quick", "--record", str(tmp_path / "runs.jsonl")]
    assert (
        run(["profile", str(checkpoint), *words, "--prompt-tokens", "8", "--max-new-tokens", "8", "--json"])
        == 0
    )
    one, four = json.loads(capsys.readouterr().out)["lines"]
    assert one["workload"]["concurrency"] == 1 and four["workload"]["concurrency"] == 4
    assert one["runtime"]["version"] and one["metrics"]["tpot_ms"]["value"] > 0
