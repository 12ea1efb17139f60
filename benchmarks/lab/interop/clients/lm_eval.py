"""lm-eval over transformers: how likely the checkpoint finds continuations of texts."""

from pathlib import Path
from typing import Any

from ..kinds import DECODE

PACKAGES = ("lm-eval[hf]==0.4.13", "transformers==5.24.0", "compressed-tensors==0.20.1", "torch")
ARTIFACTS, KINDS, ASKED = ("checkpoint",), DECODE, "scored"


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """By the requests that its tasks of multiple choice make."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(artifact), device="cpu", dtype="float32", batch_size=1)
    pairs = zip(task["contexts"], task["continuations"], strict=True)
    asked = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    return {"values": [[found] for found, _greedy in model.loglikelihood(asked, disable_tqdm=True)]}
