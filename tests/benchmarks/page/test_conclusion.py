"""The verdict says what was measured and no more."""

from collections.abc import Callable
from typing import Any

import pytest
from edgepress.benchmarks.page.conclusion import sentences
from edgepress.benchmarks.page.device_table import device_table
from edgepress.benchmarks.page.headline import headline, why
from edgepress.benchmarks.page.heat_grid import damage, level
from edgepress.benchmarks.page.join import join
from edgepress.benchmarks.page.plots import plots
from edgepress.benchmarks.page.result_groups import ResultGroup
from edgepress.benchmarks.page.sections import not_measured
from edgepress.benchmarks.page.tiles import tiles
from edgepress.benchmarks.records.record import Measurement, Metric, Subject, Validity

Make = Callable[..., Measurement]
MakeSubject = Callable[..., Subject]
MakeMetric = Callable[..., Metric]
One = Callable[..., ResultGroup]


@pytest.fixture
def one(make_subject: MakeSubject, make_quality: Make, make_latency: Make, make_metric: MakeMetric) -> One:
    """A group of one compressed decoder beside its original; ``compare`` and validity of latency may vary."""

    def build(
        compare: dict[str, Any] | None, quality_status: str = "valid", latency_status: str = "valid"
    ) -> ResultGroup:
        original, graph = make_subject("fp32", 540, form="hf"), make_subject("fp32", 540)
        made = make_subject("W4A16-g64 gptq", 83)
        doubt = Validity(status=quality_status, reasons=["logits differ"])  # type: ignore[arg-type]
        return join(
            [
                make_quality(original, None, {"perplexity": make_metric(26.9, 1), "kl": make_metric(0.0, 0)}),
                make_quality(
                    made,
                    original,
                    {"perplexity": make_metric(30.1, 1), "kl": make_metric(0.15, 0.01)},
                    validity=doubt,
                ),
                make_latency(graph, None, {"decode_tps": make_metric(50, 1)}),
                make_latency(
                    made,
                    graph,
                    {"decode_tps": make_metric(155, 1)},
                    compare=compare,
                    validity=Validity(status=latency_status, reasons=["a busy machine"]),  # type: ignore[arg-type]
                ),
            ]
        )[0]

    return build


def test_one_version_in_one_sentence(one: One) -> None:
    group = one({"ratio_median": 3.1, "ci95": [3.0, 3.2], "n_pairs": 10, "verdict": "faster"})
    assert sentences(group) == [
        "4 bits (W4A16-g64 gptq): 6.5× smaller, 3.1× faster in decoding on AMD EPYC 9R14, perplexity +12 %."
    ]
    assert [(tile.number, tile.interval) for tile in tiles(group)] == [
        *(("6.5×", ""), ("3.1×", "3.0×–3.2×"), ("+12 %", ""), ("0.150", "0.140–0.160"))
    ]
    assert not any(tile.doubt for tile in tiles(group))


def test_a_noisy_number_is_marked_in_sentence_and_tile(one: One) -> None:
    compare = {"ratio_median": 3.1, "ci95": [2.5, 3.9], "n_pairs": 10, "verdict": "faster"}
    group = one(compare, latency_status="suspect")
    assert "3.1× faster in decoding on AMD EPYC 9R14 (noisy)," in sentences(group)[0]
    assert [tile.doubt for tile in tiles(group)] == ["", "a busy machine", "", ""]


def test_a_ratio_to_a_noisy_original_is_marked_as_well(
    make_subject: MakeSubject, make_latency: Make, make_metric: MakeMetric
) -> None:
    original, made = make_subject("fp32", 540), make_subject("W4A16-g64", 83)
    faster = {"ratio_median": 5.0, "ci95": [4.0, 5.0], "verdict": "faster"}
    noisy = Validity(status="suspect", reasons=["a busy machine"])
    timed = {"decode_tps": make_metric(65, 20), "prefill_tps": make_metric(900, 5)}
    lines = [
        make_latency(original, None, timed, validity=noisy),
        make_latency(made, original, timed, compare={**faster, "by_metric": {"prefill_tps": faster}}),
    ]
    group = join(lines)[0]
    assert "5.0× faster in decoding on AMD EPYC 9R14 (noisy)" in sentences(group)[0]
    assert [tile.doubt for tile in tiles(group)] == ["", *["the original: a busy machine"] * 2]
    (speed,) = device_table(group).rows[1].speeds
    assert (speed.rate.status, speed.ratio) == ("valid", "≈ 5.0×")


def test_tiles_have_both_speeds_and_the_interval_of_the_paired_difference(
    make_subject: MakeSubject, make_quality: Make, make_latency: Make, make_metric: MakeMetric
) -> None:
    original, made = make_subject("fp32", 540), make_subject("W4A16-g64", 83)
    faster = {"ratio_median": 2.0, "ci95": [1.9, 2.1], "verdict": "faster"}
    slower = {"ratio_median": 0.5, "ci95": [0.4, 0.8], "verdict": "slower"}
    timed = {"decode_tps": make_metric(100, 1), "prefill_tps": make_metric(900, 5)}
    delta = {"delta": {"perplexity": {"value": 2.0, "ci95": [1.0, 3.0]}}}
    lines = [
        make_quality(original, None, {"perplexity": make_metric(20.0, 1)}),
        make_quality(made, original, {"perplexity": make_metric(22.0, 1)}, compare=delta),
        make_latency(made, original, timed, compare={**faster, "by_metric": {"prefill_tps": slower}}),
    ]
    assert [(tile.number, tile.caption, tile.interval) for tile in tiles(join(lines)[0])][1:] == [
        ("2.0×", "faster in decoding, 100 tokens/s", "1.9×–2.1×"),
        ("2.0×", "slower in reading prompts, 900 tokens/s", "1.2×–2.5×"),
        ("+10 %", "perplexity: 22.00, was 20.00", "+5.0 % to +15 %"),
    ]


def test_slower_and_same_are_said(one: One) -> None:
    slower = sentences(one({"ratio_median": 0.5, "ci95": [0.45, 0.55], "n_pairs": 10, "verdict": "slower"}))
    assert "2.0× slower in decoding" in slower[0]
    same = sentences(one({"ratio_median": 1.01, "ci95": [0.99, 1.03], "n_pairs": 10, "verdict": "same"}))
    assert "no faster and no slower in decoding" in same[0]


def test_separate_runs_are_not_called_faster(one: One) -> None:
    for compare in (None, {"ratio_median": 3.1, "ci95": [0.9, 5.0], "n_pairs": 4, "verdict": "invalid"}):
        (sentence,) = sentences(one(compare))
        assert "faster" not in sentence
        assert "155 tokens/s (the original, in a separate run: 50.0)" in sentence


def test_a_version_that_lost_its_text_is_said_and_not_recommended(
    measured: list[Measurement],
) -> None:
    lost = {"verdict": "loops", "loops": 0.45, "original": 0.05, "prompts": 20}
    lines = [
        line.model_copy(update={"compare": {"text": lost}})
        if line.subject.scheme == "W4A16-g64 gptq" and "kl" in line.metrics
        else line
        for line in measured
    ]
    group = join(lines)[0]
    row = headline(group)
    assert row is not None and row.subject.scheme == "W4A16-g32 gptq"
    assert why(group).endswith("; W4A16-g64 gptq lost its text")
    said = "The text is lost: W4A16-g64 gptq (9 of 20 replies end in a loop, 1 of the original's)."
    assert said in sentences(group)


def test_a_version_that_is_slower_here_is_not_recommended_here(
    make_subject: MakeSubject, make_quality: Make, make_latency: Make, make_metric: MakeMetric
) -> None:
    original, four, eight = (
        make_subject(name, size) for name, size in (("fp32", 540), ("W4A16-g64", 83), ("W8A8", 140))
    )
    lines = [
        make_quality(four, original, {"kl": make_metric(0.1, 0.01)}),
        make_quality(eight, original, {"kl": make_metric(0.01, 0.001)}),
    ]
    for verdict, one in (("faster", four), ("slower", eight)):
        compare = {"ratio_median": 2.0 if verdict == "faster" else 0.5, "ci95": None, "verdict": verdict}
        lines.append(make_latency(one, original, {"decode_tps": make_metric(100, 1)}, compare=compare))
    group = join(lines)[0]
    row = headline(group)
    assert row is not None and row.subject.scheme == "W4A16-g64"
    assert why(group) == "the only version to choose; W8A8 is slower than the original here"


def test_an_invalid_quality_line_gives_no_numbers(one: One) -> None:
    lead, doubt = sentences(one(None, "invalid"))
    assert "KL" not in lead
    assert "30.1" not in lead
    assert doubt == "Not to be used: the quality of W4A16-g64 gptq (logits differ)."


def test_sizes_that_differ_by_nothing_are_called_the_same(measured: list[Measurement]) -> None:
    sizes = {line.subject.scheme: line.subject.disk_bytes for line in measured}
    changed = {"disk_bytes": sizes["W4A16-g64 gptq"] + 1}
    lines = [
        line.model_copy(update={"subject": line.subject.model_copy(update=changed)})
        if line.subject.scheme == "W4A16-g32 gptq"
        else line
        for line in measured
    ]
    assert "is as large and loses" in why(join(lines)[0])


def test_several_versions(measured: list[Measurement]) -> None:
    group = join(measured)[0]
    row = headline(group)
    assert row is not None
    assert row.subject.scheme == "W4A16-g64 gptq"
    found = sentences(group)
    assert found[0].startswith("4 bits (W4A16-g64 gptq): 6.5× smaller, 3.6× faster")
    assert why(group) == (
        "the bend of size against mean KL: W2A16-g64 gptq is 21 % smaller and loses 45× as much, "
        "W4A16-g32 gptq is 11 % larger and loses 0.94× as much"
    )
    assert found[1] == (
        "Of the 6 compressed versions, closest to the original is W8A8 gptq (2.4× smaller, mean KL 0.013) "
        "and the smallest is W2A16-g64 gptq (8.2× smaller, mean KL 6.610)."
    )
    assert found[2].startswith("Not to be used: the latency and memory of W2A16-g64 gptq (impossible")
    assert found[3] == ("Noisy: the latency and memory of W3A16-g64 gptq, as noted under the table.")


def test_gaps_are_named(make_subject: MakeSubject, make_quality: Make, make_metric: MakeMetric) -> None:
    original, made = make_subject("fp32", 540, form="hf"), make_subject("W8A8", 140)
    other = make_subject("W4A16-g64", 83)
    lines = [make_quality(made, original, {"kl": make_metric(0.1, 0.01), "perplexity": make_metric(27, 1)})]
    lines.append(make_quality(other, original, {"kl": make_metric(0.1, 0.01)}))
    text = not_measured(join(lines)[0])
    assert "perplexity of W4A16-g64, the original;" in text
    assert "decoding speed;" in text
    assert "KL to the original" not in text
    assert "energy" in text


def test_damage_grid_places_layers_by_block_and_kind() -> None:
    layers = [
        {"name": "encoder.layer.0.attention.output.dense", "status": "ok", "error": 1e-5},
        {"name": "encoder.layer.0.output.dense", "status": "fallback-rtn", "error": 1.0},
        {"name": "encoder.layer.2.output.dense", "status": "ok", "error": None},
        {"name": "lm_head", "status": "ok", "error": 0.5},
    ]
    subject = Subject(
        name="n",
        manifest_sha256="a",
        kind="encoder",
        format="onnx",
        scheme="W8A8",
        disk_bytes=1,
        layers=layers,
    )
    found = damage(subject)
    assert found is not None
    assert found.kinds == ("attention.output.dense", "output.dense")
    assert found.levels == ((0, None), (8, None))
    assert found.marked == ((1, 0),)
    assert f"worst {layers[1]['name']} with 1" in found.description
    assert "1 fallback-rtn" in found.description
    assert damage(subject.model_copy(update={"layers": []})) is None


def test_damage_levels_are_even_steps_of_the_logarithm() -> None:
    assert [level(error) for error in (0.0, 1e-5, 10**-2.5, 1.0, 50.0)] == [0, 0, 4, 8, 8]
    assert [level(10 ** (-5 + 5 * step / 8)) for step in range(9)] == list(range(9))


def test_classifiers_are_judged_by_their_labels(
    make_subject: MakeSubject, make_quality: Make, make_latency: Make, make_metric: MakeMetric
) -> None:
    original, made = (
        make_subject(name, size, kind="classifier") for name, size in (("fp32", 91), ("W8A8", 25))
    )

    def scores(kl: float, accuracy: float) -> dict[str, Metric]:
        return {"label_kl": make_metric(kl, 0.001), "label_accuracy": make_metric(accuracy, 0.01)}

    compare = {"ratio_median": 1.7, "ci95": (1.6, 1.8), "n_pairs": 10, "verdict": "faster", "reason": ""}
    lines = [
        make_quality(original, None, scores(0, 0.824)),
        make_quality(made, original, scores(0.0123, 0.819)),
        make_latency(original, None, {"sentences_per_second": make_metric(96, 1)}),
        make_latency(made, original, {"sentences_per_second": make_metric(163, 1)}, compare=compare),
    ]
    group = join(lines)[0]
    assert sentences(group)[0] == (
        "8 bits (W8A8): 3.6× smaller, 1.7× faster in texts per second on AMD EPYC 9R14, "
        "accuracy 82.4 → 81.9 %."
    )
    assert [plot.title for plot in plots(group, "c")] == ["Accuracy against size", "Accuracy against speed"]
    assert [(tile.number, tile.caption) for tile in tiles(group)][2:] == [
        ("81.9 %", "accuracy, was 82.4"),
        ("0.0123", "mean KL of the labels to the original"),
    ]
    assert "accuracy of the labels" not in not_measured(group) and "energy" in not_measured(group)
