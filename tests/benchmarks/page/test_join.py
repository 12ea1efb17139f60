"""Lines → rows: what is merged, what replaces what, and what is never put side by side."""

import random
from collections.abc import Callable

import pytest
from edgepress.benchmarks.page.device_table import device_names
from edgepress.benchmarks.page.join import join
from edgepress.benchmarks.records.record import Measurement, Metric, Subject, Validity

Make = Callable[..., Measurement]
MakeSubject = Callable[..., Subject]
MakeMetric = Callable[..., Metric]


def test_quality_and_latency_of_one_artifact_share_a_row(measured: list[Measurement]) -> None:
    decoder, encoder = join(measured)
    assert (decoder.kind, encoder.kind) == ("decoder", "encoder")
    assert len(decoder.rows) == 8
    assert len(encoder.rows) == 3
    row = next(row for row in decoder.rows if row.subject.scheme == "W4A16-g64 gptq")
    assert row.usable("kl") == 0.148
    assert row.usable("decode_tps") == 156


def test_order_of_lines_does_not_matter(measured: list[Measurement]) -> None:
    shuffled = list(measured)
    random.Random(1).shuffle(shuffled)
    for one, other in zip(join(measured), join(shuffled), strict=True):
        assert [row.subject.manifest_sha256 for row in one.rows] == [
            row.subject.manifest_sha256 for row in other.rows
        ]


def test_baselines_come_first_and_the_checkpoint_is_the_reference(measured: list[Measurement]) -> None:
    group = join(measured)[0]
    assert [row.is_baseline for row in group.rows] == [True, True] + [False] * 6
    assert group.reference is not None
    assert group.reference.format == "hf"
    four_bits = next(row for row in group.rows if row.subject.scheme == "W4A16-g64 gptq")
    assert group.ratio(four_bits) == pytest.approx(541 / 83.1)


def test_the_newest_line_replaces_the_older_one_whole(
    make_subject: MakeSubject, make_latency: Make, make_metric: MakeMetric
) -> None:
    made = make_subject("W4A16-g64", 83)
    fast = {"decode_tps": make_metric(200, 1), "prefill_tps": make_metric(900, 1)}
    slow = {"decode_tps": make_metric(100, 1)}
    older = make_latency(made, None, fast, created_utc="2026-11-25T02:00:00+00:00")
    newer = make_latency(made, None, slow, created_utc="2026-11-25T03:00:00+00:00")
    for lines in ([older, newer], [newer, older]):
        row = join(lines)[0].rows[0]
        assert row.usable("decode_tps") == 100
        assert row.reading("prefill_tps") is None


def test_a_newer_invalid_line_is_not_passed_over_for_an_older_valid_one(
    make_subject: MakeSubject, make_latency: Make, make_metric: MakeMetric
) -> None:
    made = make_subject("W4A16-g64", 83)
    metrics = {"decode_tps": make_metric(100, 1)}
    older = make_latency(made, None, metrics, created_utc="2026-11-25T02:00:00+00:00")
    broken = Validity(status="invalid", reasons=["noisy"])
    newer = make_latency(made, None, metrics, created_utc="2026-11-25T03:00:00+00:00", validity=broken)
    row = join([older, newer])[0].rows[0]
    assert row.status == "invalid"
    assert row.usable("decode_tps") is None
    reading = row.reading("decode_tps")
    assert reading is not None
    assert reading.value == 100


def test_other_conditions_are_a_table_of_their_own(
    make_subject: MakeSubject, make_quality: Make, make_metric: MakeMetric
) -> None:
    subjects = [make_subject(scheme, 100) for scheme in ("W8A8", "W4A16-g64")]
    original = make_subject("fp32", 541, form="hf")
    lines = [make_quality(one, original, {"kl": make_metric(0.1, 0.01)}) for one in subjects]
    elsewhere = {"kind": "quality", "text": "wikitext-2 test", "windows": 16, "length": 512}
    lines.append(make_quality(subjects[1], original, {"kl": make_metric(0.7, 0.01)}, workload=elsewhere))
    group = join(lines)[0]
    assert [row.usable("kl") for row in group.compressed] == [0.1, 0.1]
    (further,) = group.further
    assert [(row.subject.scheme, row.usable("kl")) for row in further.rows] == [("W4A16-g64", 0.7)]


def test_latency_on_another_machine_or_thread_count_is_not_mixed_in(
    make_subject: MakeSubject, make_latency: Make, make_metric: MakeMetric
) -> None:
    made = make_subject("W4A16-g64", 83)
    lines = [
        make_latency(made, None, {"decode_tps": make_metric(100, 1)}),
        make_latency(made, None, {"decode_tps": make_metric(60, 1)}, runtime={"threads": 1}),
        make_latency(made, None, {"decode_tps": make_metric(30, 1)}, device={"fingerprint": "other"}),
    ]
    group = join(lines)[0]
    shown = [one.rows[0].usable("decode_tps") for one in (group, *group.further)]
    assert sorted(filter(None, shown)) == [30, 60, 100]


def test_every_device_has_the_quality_of_what_ran_on_it(measured: list[Measurement]) -> None:
    elsewhere = [
        line.model_copy(update={"device": {"fingerprint": "board", "cpu": {"model": "Cortex-A76"}}})
        for line in measured
        if line.device and line.subject.scheme in ("fp32", "W4A16-g64 gptq", "W8A8 gptq")
    ]
    decoder = join([*measured, *elsewhere])[0]
    (board,) = decoder.further
    assert [row.subject.scheme for row in board.compressed] == ["W8A8 gptq", "W4A16-g64 gptq"]
    assert [row.usable("kl") for row in board.compressed] == [0.0131, 0.148]
    assert board.baselines[0].usable("perplexity") == 26.9
    assert device_names(decoder) == ["AMD EPYC 9R14, 2 threads", "Cortex-A76, 2 threads"]


def test_a_baseline_that_was_only_named_still_has_a_row(
    make_subject: MakeSubject, make_quality: Make, make_metric: MakeMetric
) -> None:
    original = make_subject("bf16", 270, form="hf")
    group = join([make_quality(make_subject("W8A8", 140), original, {"kl": make_metric(0.1, 0.01)})])[0]
    assert [(row.subject.scheme, row.is_baseline, row.lines == ()) for row in group.rows] == [
        ("bf16", True, True),
        ("W8A8", False, False),
    ]


def test_a_compressed_baseline_is_the_baseline_when_there_is_no_float_one(
    make_subject: MakeSubject, make_latency: Make, make_metric: MakeMetric
) -> None:
    rtn, gptq = make_subject("W4A16-g64 rtn", 83), make_subject("W4A16-g64 gptq", 83)
    group = join([make_latency(gptq, rtn, {"decode_tps": make_metric(100, 1)})])[0]
    assert group.reference == rtn
    assert [row.is_baseline for row in group.rows] == [True, False]


def test_not_a_number_is_missing(
    make_subject: MakeSubject, make_quality: Make, make_metric: MakeMetric
) -> None:
    line = make_quality(make_subject("W8A8", 140), None, {"kl": make_metric(float("nan"), 0)})
    assert join([line])[0].rows[0].usable("kl") is None


def test_an_artifact_of_no_bytes_has_no_ratio(
    make_subject: MakeSubject, make_quality: Make, make_metric: MakeMetric
) -> None:
    for sizes in ((0, 140), (140, 0)):
        original, made = make_subject("fp32", sizes[0], form="hf"), make_subject("W8A8", sizes[1])
        metrics = {"kl": make_metric(0.1, 0)}
        group = join([make_quality(original, None, metrics), make_quality(made, original, metrics)])[0]
        assert group.reference is not None and group.ratio(group.rows[-1]) is None


def test_models_stay_apart(make_subject: MakeSubject, make_quality: Make, make_metric: MakeMetric) -> None:
    one = make_subject("W8A8", 140)
    other = one.model_copy(update={"source": "another model", "manifest_sha256": "b" * 64})
    groups = join([make_quality(subject, None, {"kl": make_metric(0.1, 0)}) for subject in (one, other)])
    assert [group.source for group in groups] == [one.source, "another model"]


def test_caches_of_different_types_stand_side_by_side(
    make_subject: MakeSubject, make_latency: Make, make_metric: MakeMetric
) -> None:
    lines = []
    for scheme, dtype in (("W4A16-g64", "float32"), ("W4A16-g64 + KV8-channel", "int8")):
        line = make_latency(make_subject(scheme, 83), None, {"decode_tps": make_metric(200, 1)})
        lines.append(line.model_copy(update={"workload": {**line.workload, "kv_dtype": dtype}}))
    (group,) = join(lines)
    assert [row.usable("decode_tps") for row in group.rows] == [200, 200]
