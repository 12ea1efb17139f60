"""What trellis grids cost a Llama in KL: all linears rounded by words, embedding and head in float.

    python -m edgepress.benchmarks.lab.programs.trellis_kl [MODEL] [--bits 2 3 4] [--text TEXT]

One linear after another, in the order of the forward pass: the Gram of the rotated inputs that the rounded
model gives it; where ``--correction`` says so, the target is moved by what those inputs differ from the
original's; columns in words of eight, whose error later columns make good (Frantar et al. 2022, "GPTQ",
arXiv 2210.17323, by blocks of columns). An experiment ahead of a scheme: nothing is written but the table.
"""

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....compress.model.model_names import directory_of
from ....compress.numbers.input_rotation import rotated, rotated_back, rotated_gram
from ....compress.numbers.trellis import SIDE, UNITS, levels, nearest_symbols
from ....compress.text.corpus import texts_from
from ..study.page import write_table

PAGE = Path("benchmarks/lab/results/trellis.md")
DAMPING, LENGTH = 0.01, 512
GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)


def rounded(weight: Tensor, gram: Tensor, bits: int) -> Tensor:
    """``weight [out, in]`` on the grid, in the basis of its inputs, whose ``gram [in, in]`` weighs errors."""
    left, gram = rotated(weight), rotated_gram(gram)
    gram += DAMPING * gram.diagonal().mean() * torch.eye(len(gram))
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True)
    scale = UNITS[bits] * left.square().mean(1, keepdim=True).sqrt()
    found = torch.empty_like(left)
    for begin in range(0, left.shape[1], SIDE):
        block, rest = slice(begin, begin + SIDE), slice(begin + SIDE, None)
        found[:, block] = scale * levels(nearest_symbols(left[:, block], scale, bits), bits)
        error = torch.linalg.solve_triangular(
            factor[block, block], left[:, block] - found[:, block], upper=True, left=False
        )
        left[:, rest] -= error @ factor[block, rest]
    return rotated_back(found)


def corrected(weight: Tensor, gram: Tensor, cross: Tensor, damping: float) -> Tensor:
    """``weight`` moved so that its products with our inputs come near those with the original's; ``cross
    [in, in]`` is the sum of the original's inputs times ours.
    """
    damped = gram + damping * gram.diagonal().mean() * torch.eye(len(gram))
    moved: Tensor = torch.linalg.solve(damped, (cross - gram).T)
    return weight + weight @ moved.T


class Inputs:
    """Catches what linears of a block read."""

    def __init__(self, block: Any, name: str) -> None:
        self.seen: list[Tensor] = []
        self.hook = block.get_submodule(name).register_forward_pre_hook(
            lambda _, given: self.seen.append(given[0].flatten(0, 1))
        )

    def taken(self) -> Tensor:
        """``[tokens, in]``."""
        self.hook.remove()
        return torch.cat(self.seen)


def round_model(model: Any, ids: Tensor, bits: int, damping: float | None) -> None:
    """Round all linears of ``model`` in place, by the tokens ``ids [windows, length]``."""
    original = copy.deepcopy(model)
    mine = theirs = model.model.embed_tokens(ids)
    positions = model.model.rotary_emb(mine, torch.arange(ids.shape[1])[None])
    for number, (block, first) in enumerate(zip(model.model.layers, original.model.layers, strict=True)):
        for group in GROUPS:
            ours, plain = Inputs(block, group[0]), Inputs(first, group[0])
            _through(block, mine, positions)
            after = _through(first, theirs, positions)
            x, y = ours.taken(), plain.taken()
            gram, cross = x.T @ x, y.T @ x
            for name in group:
                linear = block.get_submodule(name)
                target = linear.weight if damping is None else corrected(linear.weight, gram, cross, damping)
                linear.weight.copy_(rounded(target, gram, bits))
        mine, theirs = _through(block, mine, positions), after
        print(f"block {number}", file=sys.stderr)


def _through(block: Any, states: Tensor, positions: Any) -> Tensor:
    out = block(states, position_embeddings=positions)
    states_after: Tensor = out if isinstance(out, Tensor) else out[0]
    return states_after


def divergence(model: Any, original: Any, ids: Tensor) -> float:
    """Mean KL of the next-token distribution from the original's, in nats."""
    total = 0.0
    for row in ids:
        said, meant = (one(row[None]).logits[0].log_softmax(-1) for one in (model, original))
        total += float((meant.exp() * (meant - said)).sum(-1).mean())
    return total / len(ids)


def windows(tokenizer: Any, text: str, split: Any, count: int) -> Tensor:
    """``[count, LENGTH]`` ids of the text's beginning."""
    ids: list[int] = []
    for document in texts_from(text, split=split):
        ids += tokenizer(document)["input_ids"]
        if len(ids) >= count * LENGTH:
            break
    return torch.tensor(ids[: count * LENGTH]).view(-1, LENGTH)


@torch.no_grad()
def main() -> None:
    """Round and measure, a row for each number of bits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(prog="python -m edgepress.benchmarks.lab.programs.trellis_kl")
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--bits", type=int, nargs="+", default=[3], choices=list(UNITS))
    parser.add_argument("--text", default="wikipedia")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--correction", type=float, help="damping of the moved target, of the mean diagonal")
    arguments = parser.parse_args()
    directory = directory_of(arguments.model)
    original = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = windows(tokenizer, arguments.text, "calibration", arguments.windows)
    held = windows(tokenizer, arguments.text, "held-out", 12)
    rows = []
    for bits in arguments.bits:
        model, begun = copy.deepcopy(original), time.process_time()
        round_model(model, ids, bits, arguments.correction)
        seconds, loss = time.process_time() - begun, divergence(model, original, held)
        rows.append([f"T{bits}A16", f"{loss:.3f}", f"{seconds:.0f}"])
        print(rows[-1], file=sys.stderr)
    command = f"python -m edgepress.benchmarks.lab.programs.trellis_kl {' '.join(sys.argv[1:])}"
    notes = [
        f"{arguments.windows} windows of {LENGTH} tokens rounded by, 12 held out; embedding, head in float.",
        f"Damping {DAMPING}; correction: {arguments.correction or 'none'}.",
    ]
    title = f"KL of {arguments.model}, correction {arguments.correction or 'none'}"
    write_table(
        PAGE, title, command, ["grid", "KL, nats a token", "CPU seconds"], rows, notes, page="Trellis grids"
    )


if __name__ == "__main__":
    main()
