"""What was measured against what the machine's kernel table foresaw, where there is one."""

from collections.abc import Mapping
from pathlib import Path

from ...devices.predict.predict import foretold
from ...devices.predict.prediction import Prediction
from ...devices.predict.subject import PredictedWork, bundle_subject
from ..records.record import Measurement, Metric
from .work.timed_answer import TimedAnswer
from .work.timed_work import TimedGeneration, TimedImages, Workload

# Further apart than this, one of the two is wrong, or the machine is not what it was.
APART = 0.25
_COMPARED = {
    "decode_tps": "decode, tokens per second",
    "prefill_tps": "prefill, tokens per second",
    "sentences_per_second": "sentences per second",
    "images_per_second": "images per second",
    "latency_ms": "latency in ms",
    "rss_peak_bytes": "peak RSS in bytes",
}


def foreseen(bundle: Path, workload: Workload, threads: int, provider: str) -> Prediction | None:
    """What the table of this machine predicts of ``workload``; None where it has none, or none for this."""
    if isinstance(workload, TimedGeneration | TimedAnswer):
        work = PredictedWork(workload.prompt_tokens, workload.new_tokens)
    elif isinstance(workload, TimedImages):
        work = PredictedWork(batch=workload.batch)
    else:
        work = PredictedWork(workload.length, batch=workload.batch)
    return foretold(lambda: bundle_subject(bundle), work, threads, provider=provider)


def foreseen_on(machine: str, bundle: Path, line: Measurement) -> Prediction | None:
    """What the table of the device ``machine`` predicts of the work of ``line``; None as :func:`foreseen`."""
    work, threads = line.workload, line.runtime.get("threads")
    if line.runtime.get("providers") != ["CPUExecutionProvider"] or not isinstance(threads, int):
        return None
    named = {"length": "prompt_tokens", **{name: name for name in ("prompt_tokens", "new_tokens", "batch")}}
    wanted = PredictedWork(**{into: work[name] for name, into in named.items() if name in work})
    return foretold(lambda: bundle_subject(bundle), wanted, threads, machine)


def apart(prediction: Prediction | None, metrics: Mapping[str, Metric]) -> list[str]:
    """A sentence for each quantity of which prediction and measurement are 25 % apart."""
    said: list[str] = []
    if prediction is None:
        return said
    for name, words in _COMPARED.items():
        expected = prediction.value(name)
        measured = metrics[name].value if name in metrics else None
        if expected and measured and abs(measured / expected - 1) > APART:
            said.append(
                f"{words}: {100 * abs(measured / expected - 1):.0f} % "
                f"{'above' if measured > expected else 'below'} the {expected:,.4g} that the kernel table "
                "predicts: the machine was busy now or then, or the table is old (edgepress devices measure)"
            )
    return said
