"""The distances of an export's proof, as people read them."""

from __future__ import annotations

from typing import Any

# What a proof calls its distances, and what a reader does.
_DISTANCES = {
    "kl_mean": "KL",
    "perplexity_ratio": "perplexity ×",
    "top1_agreement": "same likeliest token",
    "top1_agreement_where_clear": "where its choice is clear",
    "cosine_distance_mean": "cosine distance",
    "label_kl_mean": "KL of labels",
    "label_agreement": "same labels",
}


def shown_distances(found: dict[str, Any]) -> str:
    """The distances of a proof in words, with the bounds that they were held to."""
    bounds, parts = found.get("bounds", {}), []
    for name, words in _DISTANCES.items():
        if name in found and "agreement" in name:
            parts.append(f"{words} {100 * found[name]:.1f} %")
        elif name in found:
            bound = f" (bound {bounds[name]:.2g})" if name in bounds else ""
            parts.append(f"{words} {found[name]:.4g}{bound}")
    return ", ".join(parts)


def largest_difference(found: dict[str, Any]) -> str:
    """That of a graph in floats from torch's model, and its bound."""
    return f"largest difference {found['max_abs_difference']:.3g} (bound {found['bound']:.3g})"
