"""Every version beside every device, and which one is recommended where."""

from edgepress.benchmarks.page.conclusion import sentences
from edgepress.benchmarks.page.device_table import device_names, device_table
from edgepress.benchmarks.page.join import join
from edgepress.benchmarks.page.plots import plots
from edgepress.benchmarks.page.result_groups import Delivered
from edgepress.benchmarks.records.record import Measurement


def _board(line: Measurement) -> Measurement:
    """The line as of a board where the version of 4 bits is slower than the original."""
    changes = {"device": {"fingerprint": "board", "cpu": {"model": "Cortex-A76"}}}
    if line.subject.scheme.startswith("W4") and line.compare is not None:
        changes["compare"] = {**line.compare, "verdict": "slower", "ratio_median": 0.5}
    return line.model_copy(update=changes)


def test_each_device_is_a_column_and_has_its_own_recommendation(measured: list[Measurement]) -> None:
    schemes = ("fp32", "W4A16-g64 gptq", "W8A8 gptq")
    group = join([*measured, *(_board(x) for x in measured if x.device and x.subject.scheme in schemes)])[0]
    found = device_table(group)
    assert found.devices == ("AMD EPYC 9R14, 2 threads", "Cortex-A76, 2 threads")
    marks = {row.label: [speed.recommended for speed in row.speeds] for row in found.rows}
    assert marks["W4A16-g64 gptq"] == [True, False] and marks["W8A8 gptq"] == [False, True]
    ratios = {row.label: [speed.ratio for speed in row.speeds] for row in found.rows}
    assert ratios["W4A16-g64 gptq"] == ["3.6×", "0.500×"] and ratios["original"] == ["", ""]
    missing = next(row for row in found.rows if row.label == "W4A16-g64 rtn").speeds[1]
    assert (missing.rate.text, missing.recommended) == ("–", False)
    assert [(device, scheme) for device, scheme, _ in found.reasons] == [
        ("AMD EPYC 9R14, 2 threads", "W4A16-g64 gptq"),
        ("Cortex-A76, 2 threads", "W8A8 gptq"),
    ]
    assert found.reasons[1][2].endswith("W4A16-g64 gptq is slower than the original here")
    assert [plot.title for plot in plots(group, "p")] == [
        "Accuracy against size",
        "Accuracy against speed on AMD EPYC 9R14, 2 threads",
        "Accuracy against speed on Cortex-A76, 2 threads",
    ]


def test_what_was_delivered_is_recommended_on_every_device(measured: list[Measurement]) -> None:
    chosen = next(line for line in measured if line.subject.scheme == "W4A16-g64 rtn").subject
    elsewhere = [_board(line) for line in measured if line.device]
    group = join([*measured, *elsewhere], Delivered(chosen.manifest_sha256, "delivered: it fits"))[0]
    found = device_table(group)
    marks = {row.label: [speed.recommended for speed in row.speeds] for row in found.rows}
    assert marks.pop("W4A16-g64 rtn") == [True, True] and not any(map(any, marks.values()))
    assert {scheme for _, scheme, _ in found.reasons} == {"W4A16-g64 rtn"}
    assert {reason for *_, reason in found.reasons} == {"delivered: it fits"}
    assert not any(row.recommended for row in found.rows)  # the star is beside the speeds
    assert sentences(group)[0].startswith("4 bits (W4A16-g64 rtn): ")


def test_one_original_is_shown_and_doubtful_numbers_carry_their_marks(measured: list[Measurement]) -> None:
    found = device_table(join(measured)[0])
    assert [row.label for row in found.rows].count("original") == 1
    statuses = {row.label: row.speeds[0].rate.status for row in found.rows}
    assert statuses["W2A16-g64 gptq"] == "invalid" and statuses["W3A16-g64 gptq"] == "suspect"


def test_other_lengths_on_one_machine_are_told_apart_by_their_work(measured: list[Measurement]) -> None:
    longer = [
        line.model_copy(update={"workload": {**line.workload, "prompt_tokens": 1024}})
        for line in measured
        if line.workload["kind"] == "generate"
    ]
    names = device_names(join([*measured, *longer])[0])
    assert len(set(names)) == 2 and any("prompt of 1024 tokens" in name for name in names)


def test_without_a_device_sizes_and_quality_stand_alone(measured: list[Measurement]) -> None:
    group = join([line for line in measured if not line.device])[0]
    found = device_table(group)
    assert found.devices == () and all(row.speeds == () for row in found.rows)
    assert [(device, scheme) for device, scheme, _ in found.reasons] == [("", "W4A16-g64 gptq")]
    assert [row.label for row in found.rows if row.recommended] == ["W4A16-g64 gptq"]


def test_two_machines_of_one_make_have_the_names_of_their_owner(measured: list[Measurement]) -> None:
    there = [
        line.model_copy(update={"device": {**line.device, "name": "pi"}}) for line in measured if line.device
    ]
    names = device_names(join([*measured, *there])[0])
    assert set(names) == {"AMD EPYC 9R14, 2 threads", "pi: AMD EPYC 9R14, 2 threads"}
