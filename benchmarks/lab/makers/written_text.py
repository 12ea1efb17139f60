"""Text that a small decoder writes itself, for passes that learn from it where there is no other text.

A teacher can be asked about its own text without end (data-free quantization-aware training: LLM-QAT, Liu et
al. 2023, arXiv 2305.17888). Every sequence goes on from a few tokens of the given texts, drawn anywhere in
them, and every token is drawn from the whole distribution. One thread writes about 1,400 tokens a second with
the small Llama.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ....compress.train.trainer import continued
from ....files.storage import write_atomic

if TYPE_CHECKING:
    from ..study.schema import Source
    from ..study.sources import Sources

PICO: dict[str, Any] = {"batches": 1, "rows": 4, "length": 32}


def make(
    target: Path,
    sources: Sources,
    *,
    model: Source,
    after: list[Source],
    batches: int = 18,
    rows: int = 128,
    length: int = 512,
    prompt: int = 16,
    seed: int = 0,
) -> None:
    """Write ``batches`` of ``rows`` sequences of ``length`` tokens, ``prompt`` of them from ``after``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = sources.model(model)
    decoder: Any = AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    text = "".join("\n\n".join(sources.documents(one)) for one in after)
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    generator = torch.Generator().manual_seed(seed)
    written: list[str] = []
    for _ in range(batches):
        starts = torch.randint(0, len(ids) - prompt, (rows,), generator=generator)
        batch = torch.zeros(rows, length, dtype=torch.int64)
        batch[:, :prompt] = torch.stack([ids[start : start + prompt] for start in starts])
        batch = continued(decoder, batch, prompt, generator)
        written += [tokenizer.decode(row, skip_special_tokens=True) for row in batch]
    write_atomic(target, "".join(f"{one}\n\n" for one in written).encode())
