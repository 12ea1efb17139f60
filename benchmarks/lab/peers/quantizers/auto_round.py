"""AutoRound: learned rounding and clipping, block by block, with none, few and its default iterations; and
with bits by layer, which its AutoScheme chooses.
"""

import json
from pathlib import Path
from typing import Any

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
# By the bits a weight on average, scales counted; of what is chosen no layer has more than 8.
_MIXED = {f"scheme-{bits}-20": bits for bits in (2.4, 3.17, 3.25, 4.25, 5.12)}
VARIANTS |= {
    name: QuantizerVariant(f"AutoRound, AutoScheme of {bits} bits, 20 iterations", 8)
    for name, bits in _MIXED.items()
}


def quantize(task: CompressionTask, variant: str) -> None:
    """``AutoRound.quantize`` over the calibration tokens, symmetric groups."""
    from auto_round import AutoRound
    from transformers import AutoTokenizer

    chosen, tokenizer = VARIANTS[variant], AutoTokenizer.from_pretrained(task.checkpoint)
    text = _as_text(task, tokenizer) if variant in _MIXED else _as_tokens(task)
    rounder = AutoRound(
        load_model(task),
        tokenizer,
        **(_mixed(_MIXED[variant], chosen, text) if variant in _MIXED else _uniform(chosen)),
        **text,
        iters=int(variant.rpartition("-")[2]),
        batch_size=_BATCH,
        device_map="cpu",
    )
    model, _ = rounder.quantize()
    write_dense(task, chosen, {name: layer.weight for name, layer in linears(model).items()})


def _uniform(chosen: QuantizerVariant) -> dict[str, Any]:
    return {"bits": chosen.bits, "group_size": chosen.group_size or -1, "sym": True}


def _mixed(bits: float, chosen: QuantizerVariant, text: dict[str, Any]) -> dict[str, Any]:
    """AutoScheme, which reads the same text."""
    from auto_round import AutoScheme
    from auto_round.schemes import QuantizationScheme

    group_size = chosen.group_size or -1
    options = [QuantizationScheme(bits=one, group_size=group_size, act_bits=16) for one in (2, 3, 4, 8)]
    read = {name: text[name] for name in ("dataset", "nsamples", "seqlen")}
    return {"scheme": AutoScheme(bits, options, **read)}


def _as_tokens(task: CompressionTask) -> dict[str, Any]:
    import torch

    tokens = task.tokens()
    rows = [{"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row))} for row in tokens]
    return {"dataset": rows, "nsamples": len(rows), "seqlen": max(map(len, tokens))}


def _as_text(task: CompressionTask, tokenizer: Any) -> dict[str, Any]:
    """The name of a file: AutoScheme takes nothing else. Of each row what encoding again leaves."""
    tokens, file = task.tokens(), Path(f"{task.result}.jsonl")
    texts = [tokenizer.decode(row) for row in tokens]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    length = min(len(tokenizer(text)["input_ids"]) for text in texts)
    return {"dataset": str(file), "nsamples": len(tokens), "seqlen": length}
