"""AutoRound: learned rounding and clipping, block by block, with none, few and its default iterations."""

from __future__ import annotations

from ..contract import CompressionTask, QuantizerVariant
from ._dense import between, linears, load_model, write_dense

TITLE = "AutoRound"
PACKAGES = (
    "auto-round==0.16.1",
    "torch",
)
DISTRIBUTIONS = ("auto-round", "transformers", "torch")
_BATCH = 8  # sequences an iteration: its default, named so that a release cannot change it
VARIANTS = {
    f"w{bits}-{iterations}": QuantizerVariant(f"AutoRound, {iterations} iterations", bits)
    for bits in (4, 3, 2)
    for iterations in (0, 20, 200)
} | {f"{name}-20": variant for name, variant in between("AutoRound, 20 iterations").items()}


def quantize(task: CompressionTask, variant: str) -> None:
    """``AutoRound.quantize`` over the calibration tokens, symmetric groups."""
    import torch
    from auto_round import AutoRound
    from transformers import AutoTokenizer

    chosen, tokens = VARIANTS[variant], task.tokens()
    rows = [{"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row))} for row in tokens]
    rounder = AutoRound(
        load_model(task),
        AutoTokenizer.from_pretrained(task.checkpoint),
        bits=chosen.bits,
        group_size=chosen.group_size or -1,
        sym=True,
        iters=int(variant.rpartition("-")[2]),
        nsamples=len(tokens),
        seqlen=max(map(len, tokens)),
        batch_size=_BATCH,
        dataset=rows,
        device_map="cpu",
    )
    model, _ = rounder.quantize()
    write_dense(task, chosen, {name: layer.weight for name, layer in linears(model).items()})
