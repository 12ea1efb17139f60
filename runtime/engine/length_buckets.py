"""Batches of texts of about one length, bounded by what a core's cache holds and not by a number of texts.

On a CPU a batch gains nothing beyond a few hundred tokens: the matrix products are at full speed there, and
the values between them no longer fit the cache. MiniLM's float32 values of 256 tokens are 0.4 MB, and 1.6 MB
inside its MLP.
"""

from __future__ import annotations

from collections.abc import Sequence

# Measured on a core with 1 MB of second-level cache: benchmarks/lab/results/encoder-speed.md.
TOKENS_PER_CORE = 256


def length_buckets(lengths: Sequence[int], *, rows: int, tokens: int) -> list[list[int]]:
    """Indices of ``lengths`` in batches: each index once, the longest first.

    A batch has at most ``rows`` of them and, padded to its longest, at most ``tokens`` tokens; a text that is
    longer than that is a batch of its own. Within a batch lengths fall, and no later batch has a longer one.
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not room:
            batches.append([])
            room = max(1, min(rows, tokens // max(1, lengths[index])))
        batches[-1].append(index)
        room -= 1
    return batches
