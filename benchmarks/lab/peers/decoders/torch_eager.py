"""transformers on torch, eager, in the environment of edgepress itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..contract import ConversionTask, DecoderVariant, DecodingEngine, EngineSettings, StepwiseEngine

TITLE = "torch eager"
PACKAGES = ()
DISTRIBUTIONS = ("torch", "transformers")
VARIANTS = {
    "float32": DecoderVariant("float32", 32, 32, slow=True),
    "bfloat16": DecoderVariant("bfloat16", 16, 16, slow=True),
}


def convert(task: ConversionTask, variant: str) -> None:
    """The checkpoint is what torch runs: only its path is written down."""
    (task.artifact / "checkpoint.txt").write_text(str(task.checkpoint), encoding="utf-8")


def load(artifact: Path, variant: str, settings: EngineSettings) -> DecodingEngine:
    """The model in the variant's type, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(settings.threads)
    checkpoint = (artifact / "checkpoint.txt").read_text(encoding="utf-8")
    AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, variant)).eval()
    past: list[Any] = [None]

    @torch.inference_mode()
    def run(ids: Sequence[int]) -> int:
        tokens = torch.tensor([list(ids)])
        out = model(input_ids=tokens, past_key_values=past[0], use_cache=True, logits_to_keep=1)
        past[0] = out.past_key_values
        return int(out.logits[0, -1].argmax())

    def first(ids: Sequence[int]) -> int:
        past[0] = None
        return run(ids)

    return StepwiseEngine(first, lambda token: run([token]))
