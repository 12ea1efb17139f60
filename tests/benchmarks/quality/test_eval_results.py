"""The file for ``.eval_results/`` of a model's repository, as the hub's own library reads it."""

from pathlib import Path

import pytest
import yaml
from edgepress.benchmarks.quality.eval_results import check_benchmark, write_eval_results
from edgepress.benchmarks.records.record import Measurement
from edgepress.errors import InputError
from huggingface_hub import parse_eval_result_entries

TASK = "someone/passages:default"


def one(measured: list[Measurement], scheme: str) -> Measurement:
    found = (line for line in measured if line.subject.scheme == scheme)
    return next(line for line in found if line.workload["kind"] == "quality")


@pytest.mark.parametrize(
    ("scheme", "figure"), [("W4A16-g64 gptq", "perplexity"), ("W8A8 rtn", "retrieval_at_1")]
)
def test_the_hub_s_library_reads_the_headline_figure(
    measured: list[Measurement], tmp_path: Path, scheme: str, figure: str
) -> None:
    line, path = one(measured, scheme), tmp_path / "w4.eval_results.yaml"
    for _ in range(2):  # the second time in place of the first
        check_benchmark(TASK, path)
        write_eval_results(line, TASK, path)
    (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.dataset_id, entry.task_id) == ("someone/passages", "default")
    assert entry.value == pytest.approx(line.metrics[figure].value)
    assert entry.date == line.created_utc and entry.notes is not None
    assert entry.notes.startswith(f"{figure} of {scheme}, n ") and "95 % interval" in entry.notes


def test_what_is_no_result(measured: list[Measurement], tmp_path: Path) -> None:
    for named in ("passages", "someone/passages", "a/b/c:default", "someone/passages:", "someone/x:a b"):
        with pytest.raises(InputError, match="OWNER/NAME:TASK"):
            check_benchmark(named, tmp_path / "x.yaml")
    own = tmp_path / "own.yaml"
    own.write_text("mine: 1\n")
    with pytest.raises(InputError, match="stays as it is"):
        check_benchmark(TASK, own)
    bare = one(measured, "W8A8 rtn").model_copy(update={"metrics": {}})
    with pytest.raises(InputError, match="was not measured"):
        write_eval_results(bare, TASK, tmp_path / "x.yaml")
    assert not (tmp_path / "x.yaml").exists()
