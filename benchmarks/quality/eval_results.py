"""The result of a validation as the Hugging Face Hub reads it from ``.eval_results/*.yaml`` of a model's
repository. The hub shows results on data sets that are benchmarks there, which the user alone can know.
"""

import re
from pathlib import Path

import yaml

from ... import __version__
from ...compress.model.model_names import is_hub_id
from ...errors import InputError
from ...files.disk import disk_full_is_typed
from ...files.escaping import one_line
from ...files.storage import read_regular, write_atomic
from ..records.record import Measurement

# The figure of each kind of model that benchmarks are about.
_FIGURE = {"decoder": "perplexity", "encoder": "retrieval_at_1", "classifier": "label_accuracy"}
_TASK = re.compile(r"[\w.-]{1,80}")
_MARK = "# edgepress validate, for .eval_results/ of a model's repository on the Hugging Face Hub"


def check_benchmark(named: str, path: Path) -> None:
    """Refuse what names no task of a data set, and a file at ``path`` that no validation wrote."""
    dataset, _, task = named.partition(":")
    if not is_hub_id(dataset) or not _TASK.fullmatch(task):
        raise InputError(
            f"{named!r} names no task of a data set",
            fix="write OWNER/NAME:TASK, the data set on the hub and the id of a task in its eval.yaml",
        )
    if path.exists() and not read_regular(path).startswith(_MARK.encode()):
        raise InputError(f"{path} is not the result of a validation, and stays as it is", fix="move it away")


def write_eval_results(line: Measurement, named: str, path: Path) -> None:
    """Write the headline figure of ``line`` to ``path``, as a result on the benchmark ``OWNER/NAME:TASK``."""
    name = _FIGURE[line.subject.kind]
    if name not in line.metrics or line.metrics[name].value is None:
        of = "an output" if line.subject.kind == "decoder" else "labels"
        raise InputError(f"{name} was not measured", fix=f"give a .jsonl text whose rows have {of}")
    metric, (dataset, _, task) = line.metrics[name], named.partition(":")
    interval = f", 95 % interval {metric.ci95[0]:.4g} to {metric.ci95[1]:.4g}" if metric.ci95 else ""
    notes = f"{name} of {line.subject.scheme}, n {metric.n}{interval}; edgepress {__version__}"
    entry = {
        "dataset": {"id": dataset, "task_id": task},
        "value": round(float(metric.value or 0), 6),
        "date": line.created_utc,
        "notes": one_line(notes),
    }
    text = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, width=100)
    with disk_full_is_typed(path):
        write_atomic(path, f"{_MARK}\n{text}".encode())
