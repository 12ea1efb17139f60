"""The distances of a proof, in words."""

from __future__ import annotations

from edgepress.cli.proof_words import shown_distances


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
