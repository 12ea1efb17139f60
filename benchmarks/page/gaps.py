"""What the numbers of a group do not say: a table of gaps read from the measurements themselves."""

from __future__ import annotations

from .columns import ENERGY
from .energy_table import why_uncounted
from .join import Group

EXPECTED = {
    "decoder": (
        ("perplexity", "perplexity"),
        ("kl", "KL to the original"),
        ("decode_tps", "decoding speed"),
        (ENERGY["decoder"].key, "energy"),
    ),
    "encoder": (
        ("cosine", "cosine to the original"),
        ("spearman_wordsim353", "word similarity"),
        ("sentences_per_second", "speed"),
        (ENERGY["encoder"].key, "energy"),
    ),
    "classifier": (
        ("label_kl", "distance of the labels from the original's"),
        ("label_accuracy", "accuracy of the labels"),
        ("sentences_per_second", "speed"),
        (ENERGY["classifier"].key, "energy"),
    ),
}

RELATIVE = ("kl", "cosine", "label_kl")


def not_measured(group: Group) -> str:
    """A sentence on what these numbers do not say."""
    gaps = []
    for metric, name in EXPECTED[group.kind]:
        lacking = [row.subject.scheme for row in group.compressed if row.reading(metric) is None]
        without_original = (
            metric not in RELATIVE
            and group.baselines
            and not any(row.reading(metric) for row in group.baselines)
        )
        lacking += ["the original"] if without_original else []
        if not any(row.reading(metric) for row in group.rows):
            gaps.append(name)
        elif lacking:
            gaps.append(f"{name} of {', '.join(dict.fromkeys(lacking))}")
    uncounted = "; ".join(why_uncounted(group))
    if uncounted and gaps and gaps[-1].startswith("energy"):
        gaps[-1] += f" ({uncounted})"
    always = ["downstream tasks", "any machine but the one named below"]
    always += ["several sequences at once"] if group.kind == "decoder" else []
    return f"Not measured: {'; '.join([*gaps, *always])}."
