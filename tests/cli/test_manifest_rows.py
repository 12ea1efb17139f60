"""A bundle's manifest in words, and as it is where there are none for it."""

from typing import Any

import pytest
from edgepress.cli.manifest_rows import brief, described, rows_as_they_are, rows_in_words, shown_distances

CACHE = {"head_dim": 64, "kv_heads": 3}
SECTIONS: dict[str, tuple[Any, str]] = {
    "kind": ("encoder_decoder", "encoder–decoder"),
    "size_bytes": (90_876_865, "90.9 MB"),
    "layers": (
        [{"name": str(number), "scheme": "W4A16-g64", "status": "ok"} for number in range(3)]
        + [{"name": "3", "scheme": "W8A16-g64", "status": "fallback-rtn"}],
        "3 × W4A16-g64 ok, 1 × W8A16-g64 fallback-rtn",
    ),
    "decoder": (
        {
            "context_length": 8192,
            "kv_bytes_per_token": 46080,
            "kv_dtype": "float32",
            "layers": [CACHE] * 30,
            "vocab_size": 49152,
        },
        "context of 8192 tokens, float32 cache of 30 × 3 heads of 64, 46.1 kB a token, vocabulary of 49152",
    ),
    "encoder": (
        {"max_length": 512, "hidden_size": 384, "pooling": "mean", "labels": ["a", "b"], "image": None},
        "reads up to 512 tokens, hidden size 384, pooling: mean, 2 labels",
    ),
    "encoder_decoder": (
        {"max_length": 500, "context_length": 448, "kv_dtype": "int8", "layers": [CACHE], "sound": {}},
        "reads up to 500 tokens, writes up to 448 tokens, int8 cache of 3 heads of 64",
    ),
    "graph": (
        {
            "encoder": "encoder.onnx",
            "file": "model.onnx",
            "notes": ["one note"],
            "operators": "standard",
            "opset": 21,
            "provider": {"name": "cuda"},
        },
        "encoder.onnx and model.onnx, standard operators for cuda, opset 21, one note",
    ),
    "parity": (
        {
            "status": "passed",
            "float": {"max_abs_difference": 2.2891e-05, "bound": 7.227e-05},
            "quantized": {"kl_mean": 0.0068, "bounds": {"kl_mean": 0.05}, "top1_agreement": 0.9722},
        },
        "passed: KL 0.0068 (bound 0.05), same likeliest token 97.2 %",
    ),
    "steps": (
        [
            {"pass": "awq", "damage": {"kl": -5e-9, "top1": 1.0, "tokens": 1024}},
            {"pass": "gptq", "damage": {"distance": 0.0123}},
            {"pass": "kv_cache", "damage": None},
        ],
        "awq (KL 0, same likeliest token 100.0 %), then gptq (distance 0.0123), then kv_cache",
    ),
    "source": (
        {
            "calibration": {"samples": 48, "length": 512, "source": "wikipedia"},
            "checkpoint_sha256": "637060125e9fa601635ec8839f9716227c6033407aaf7ad991f403a7b251f9a1",
            "embedding": "W8A16-g32",
            "head": None,
        },
        "checkpoint 637060125e9f, calibrated on 48 × 512 of wikipedia, embedding W8A16-g32, head in floats",
    ),
    "weights": (
        {"bytes": 88_997_176, "bytes_per_token": 86_900_224, "params": 134_515_008},
        "134.5 M parameters, 89.0 MB, 86.9 MB of them read a token",
    ),
    "tool": ({"name": "edgepress", "version": "0.1.0"}, "edgepress 0.1.0"),
}


@pytest.mark.parametrize("key", SECTIONS)
def test_a_section_that_export_writes_is_in_words(key: str) -> None:
    value, words = SECTIONS[key]
    [(label, shown)] = rows_in_words({key: value})
    assert shown == words and "_" not in label


def test_a_proof_without_numbers_of_its_own_kind() -> None:
    graph = {"status": "passed", "float": {"max_abs_difference": 2.2891e-05, "bound": 7.227e-05}}
    skipped = {"status": "skipped", "warning": "exported with --no-validate"}
    shown = [text for one in (graph, skipped) for _, text in rows_in_words({"parity": one})]
    assert shown == ["passed: largest difference 2.29e-05 (bound 7.23e-05)", "exported with --no-validate"]


STRANGE = ["a", 7, 1e999, 10**400, True, [], [1], [{"strange": 1}], {}, {"strange": [None, {"kind": 1}]}]


@pytest.mark.parametrize("key", SECTIONS)
@pytest.mark.parametrize("value", STRANGE, ids=lambda value: f"{value}"[:20])
def test_what_is_not_as_export_writes_it_is_a_row_all_the_same(key: str, value: Any) -> None:
    [(_, shown)] = rows_in_words({key: value})
    assert isinstance(shown, str) and ("strange" in shown) == ("strange" in str(value))


def test_what_a_reader_looks_for_comes_first_and_the_way_to_run_it_has_a_row() -> None:
    graph = {"runs_in": "edgepress alone"}
    document = {"other_thing": [1, 1], "graph": graph, "kind": "decoder", "none": None}
    assert rows_in_words(document) == [
        ("kind", "decoder"),
        ("graph", "runs_in: edgepress alone"),
        ("runs in", "edgepress alone"),
        ("other thing", "2 × 1"),
    ]
    assert rows_as_they_are(document) == [
        ("kind", "decoder"),
        ("graph", "runs_in: edgepress alone"),
        ("other_thing", "2 × 1"),
    ]


@pytest.mark.parametrize(
    "value, lines",
    [
        ({"layers": [CACHE] * 3, "kv_scheme": None}, "layers: 3 × (head_dim 64, kv_heads 3)"),
        ({"widths": [8, 8, 4, 8], "notes": []}, "widths: 2 × 8, 4, 8\nnotes: none"),
        ({"float": {"bound": 0.000375412, "status": "passed"}}, "float: (bound 0.0003754, status passed)"),
        ("decoder", "decoder"),
    ],
)
def test_described(value: Any, lines: str) -> None:
    assert described(value) == lines


def test_brief_is_one_line_that_fits_two_rows() -> None:
    assert brief("a: 1\nb: 2") == "a: 1; b: 2"
    assert len(brief("word " * 100)) == 116 and brief("word " * 100).endswith("…")


def test_distances_are_words_with_their_bounds() -> None:
    found = {
        "kl_mean": 0.006795,
        "kl_of_rounding": 0.0003571,
        "top1_agreement": 0.9722,
        "top1_agreement_where_clear": 1.0,
        "perplexity_ratio": 1.017,
        "positions": 180,
        "bounds": {"kl_mean": 0.05, "top1_agreement_where_clear": 0.98},
    }
    assert shown_distances(found) == (
        "KL 0.006795 (bound 0.05), perplexity × 1.017, same likeliest token 97.2 %, "
        "where its choice is clear 100.0 %"
    )


def test_distances_of_a_classifier() -> None:
    found = {"cosine_distance_mean": 1e-3, "cosine_min": 0.99, "label_kl_mean": 2e-4, "label_agreement": 1.0}
    assert shown_distances(found) == "cosine distance 0.001, KL of labels 0.0002, same labels 100.0 %"
