"""Which step cost what: a few calibration tokens that go through the model once a step.

Probe ``k`` runs through blocks to which the first ``k`` steps were applied, probe 0 through the blocks as
they came. At the end, the divergence of each from probe 0 is the damage up to that step, measured at the
model's own output: on calibration text, so it tells steps apart rather than promising a perplexity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..model.skeleton import Skeleton
from ..text.token_batch import TokenBatch
from .block_inputs import Stream

TOKENS = 512
PROBED_AT_ONCE = 64  # tokens whose logits are held at once: a row is as long as the vocabulary


def probe_rows(batch: TokenBatch) -> int:
    """How many sequences of a calibration batch make a probe: at least one, about ``TOKENS`` tokens."""
    return max(1, min(batch.input_ids.shape[0], TOKENS // batch.input_ids.shape[1]))


def damage(skeleton: Skeleton, probes: Sequence[Stream], block: int) -> list[dict[str, Any]]:
    """One entry for each probe after the first: how far the model's output is from the original's.

    Decoders: ``kl`` (mean nats a token, original ‖ compressed) and ``top1`` (the likeliest token agrees).
    Encoders: ``distance``, one less the mean cosine of the tokens' last hidden states.
    """
    return divergences(skeleton, [torch.cat(list(probe.rows(block))) for probe in probes])


def divergences(skeleton: Skeleton, hidden: Sequence[Tensor]) -> list[dict[str, Any]]:
    """As :func:`damage`, of rows ``[tokens, hidden]`` that leave the last block: the original's come
    first."""
    hidden = _finite(hidden)
    if skeleton.anatomy.kind == "encoder":
        return [_distance(hidden[0], rows) for rows in hidden[1:]]
    with skeleton.head() as logits:
        return decoder_divergences(hidden, [logits] * len(hidden))


def _finite(hidden: Sequence[Tensor]) -> Sequence[Tensor]:
    """Without the tokens that are not finite in any of the probes, which hold the same ones."""
    keep = torch.stack([torch.isfinite(rows).all(1) for rows in hidden]).all(0)
    return hidden if bool(keep.all()) else [rows[keep] for rows in hidden]


def decoder_divergences(
    hidden: Sequence[Tensor], heads: Sequence[Callable[[Tensor], Tensor]]
) -> list[dict[str, Any]]:
    """As :func:`damage` of a decoder; each of ``hidden`` has a head of its own, from rows to logits."""
    totals = [[0.0, 0] for _ in hidden[1:]]
    for start in range(0, hidden[0].shape[0], PROBED_AT_ONCE):
        original = torch.log_softmax(heads[0](hidden[0][start : start + PROBED_AT_ONCE]), -1)
        best = original.argmax(-1)
        for total, rows, logits in zip(totals, hidden[1:], heads[1:], strict=True):
            other = torch.log_softmax(logits(rows[start : start + PROBED_AT_ONCE]), -1)
            total[0] += float((original.exp() * (original - other)).sum())
            total[1] += int((other.argmax(-1) == best).sum())
    tokens = hidden[0].shape[0]
    if not tokens:
        return [{"tokens": 0} for _ in totals]
    return [{"tokens": tokens, "kl": kl / tokens, "top1": same / tokens} for kl, same in totals]


def _distance(original: Tensor, rows: Tensor) -> dict[str, Any]:
    if not len(rows):
        return {"tokens": 0}
    cosine = torch.nn.functional.cosine_similarity(original, rows, dim=-1)
    return {"tokens": rows.shape[0], "distance": 1 - float(cosine.mean())}
