"""Text that a small decoder writes itself, for passes that learn from it where there is no other text.

    python -m edgepress.benchmarks.lab.programs.written_text CHECKPOINT OUT.txt --after FILE … [--seed 0]

A teacher can be asked about its own text without end (data-free quantization-aware training: LLM-QAT, Liu et
al. 2023, arXiv 2305.17888). Every piece goes on from a few tokens of the files, drawn anywhere in them, and
every token is drawn from the whole distribution. One thread writes about 1,400 tokens a second with the model
of :mod:`.ternary`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ....compress.train.on_policy import continued
from ....storage import write_atomic
from ....terminal import Terminal

ROWS, PROMPT, LENGTH = 128, 16, 512


def main() -> None:
    """The command line of this check."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--after", type=Path, nargs="+", required=True, help="files whose tokens pieces begin with"
    )
    parser.add_argument("--batches", type=int, default=18, help=f"of {ROWS} pieces of {LENGTH} tokens each")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(given.checkpoint).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(given.checkpoint)
    text = "".join(file.read_text(encoding="utf-8") for file in given.after)
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    generator = torch.Generator().manual_seed(given.seed)
    pieces: list[str] = []
    with Terminal().progress.task("written", given.batches * ROWS * LENGTH) as task:
        for _ in range(given.batches):
            starts = torch.randint(0, len(ids) - PROMPT, (ROWS,), generator=generator)
            rows = torch.zeros(ROWS, LENGTH, dtype=torch.int64)
            rows[:, :PROMPT] = torch.stack([ids[start : start + PROMPT] for start in starts])
            rows = continued(model, rows, PROMPT, generator)
            pieces += [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
            task.advance(ROWS * LENGTH)
    write_atomic(given.out, "".join(f"{piece}\n\n" for piece in pieces).encode())


if __name__ == "__main__":
    main()
