"""On-policy distillation: the student writes, the teacher grades what it wrote.

GKD, Agarwal et al. 2023, arXiv 2306.13649: a student that only ever sees other people's text is never
corrected where its own leads. For a share of the micro-batches the text after a prompt is replaced by the
student's own, sampled as it is at the time, and the loss is that of the tokens that it wrote.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..model.kv_tap import CACHE_NAMES
from ..text.micro_batches import MicroBatch


@dataclass(frozen=True)
class OnPolicy:
    """``share`` of the micro-batches are written by the student after the first ``prompt`` share of their
    tokens.

    How far learning is decides with ``seed`` and a micro-batch's number what is drawn, so that a resumed run
    draws the same.
    """

    share: float
    prompt: float
    seed: int

    def rewritten(self, model: nn.Module, batch: MicroBatch, done: float) -> MicroBatch:
        """The micro-batch, or the one that the student made of it when the share ``done`` of the steps was
        over; its rows have no padding.
        """
        generator = self._generator(batch, done)
        if float(torch.rand(1, generator=generator)) >= self.share:
            return batch
        length = batch.input_ids.shape[1]
        begin = max(1, round(self.prompt * length))
        if begin >= length:
            return batch
        return replace(
            batch, input_ids=continued(model, batch.input_ids, begin, generator), counted_from=begin - 1
        )

    def _generator(self, batch: MicroBatch, done: float) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed} {batch.number} {done!r}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def continued(model: Any, input_ids: torch.Tensor, begin: int, generator: torch.Generator) -> torch.Tensor:
    """``input_ids [rows, length]`` with all from the place ``begin`` on drawn from ``model``."""
    from transformers import DynamicCache  # only here: a plan of what learns has no need of it

    device = next(model.parameters()).device
    accepted = signature(model.forward).parameters
    cache = {next(name for name in CACHE_NAMES if name in accepted): DynamicCache(config=model.config)}
    rows = fresh = input_ids[:, :begin].to(device)
    with torch.no_grad(), parametrize.cached():
        while rows.shape[1] < input_ids.shape[1]:
            logits = model(input_ids=fresh, use_cache=True, **cache).logits
            chances = torch.softmax(logits[:, -1].to(torch.float32), -1).cpu()
            fresh = torch.multinomial(chances, 1, generator=generator).to(device)
            rows = torch.cat([rows, fresh], 1)
    return rows.to(input_ids.device)
