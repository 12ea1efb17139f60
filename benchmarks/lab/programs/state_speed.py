"""Models that carry a state, beside torch: a prompt and a token of each family, on one thread.

    python -m edgepress.benchmarks.lab.programs.state_speed WORK [RESULTS] [--rounds 5]

Each model has three blocks of random weights and SmolLM2's vocabulary. Its original runs in transformers in
float32, by the way it has without CUDA; its bundles in edgepress's operators, in float and with weights of 4
bits. A round takes all three one after the other, in this process, so that other load falls on all; how many
times as fast a bundle is, is the median over the rounds.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers

from ....compress.model.models import resolve
from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.decoder import Decoder
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.state_speed"
PROMPT, NEW = 128, 16
_BLOCKS, _HIDDEN, _VOCABULARY = 3, 768, 49152
FAMILIES: dict[str, dict[str, Any]] = {
    "mamba": {},
    "mamba2": {"num_heads": 24, "head_dim": 64, "n_groups": 1, "state_size": 128},
    "lfm2": {
        "layer_types": ["conv", "conv", "full_attention"],
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "intermediate_size": 2048,
    },
    "jamba": {
        "attn_layer_period": 3,
        "attn_layer_offset": 1,
        "num_experts": 1,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "intermediate_size": 2048,
        "use_mamba_kernels": False,
    },
}
WAYS = ("transformers, float32", "float bundle", "4-bit bundle")
Taken = tuple[float, float]  # seconds of a prompt and of a token


def made(family: str, work: Path) -> tuple[Any, dict[str, Decoder]]:
    """The original in torch, and its two bundles, made where they are not there yet."""
    source = work / family
    if not source.is_dir():
        config = transformers.AutoConfig.for_model(
            family, hidden_size=_HIDDEN, num_hidden_layers=_BLOCKS, vocab_size=_VOCABULARY, **FAMILIES[family]
        )
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(source)
        for file in Path(resolve("smollm2").path).glob("*token*"):
            (source / file.name).write_bytes(file.read_bytes())
    small = work / f"{family}-w4"
    if not small.is_dir():
        _edgepress("compress", str(source), "--scheme", "W4A16", "--group-size", "64", "-o", str(small), "-q")
    bundles = {}
    for way, checkpoint in ((WAYS[1], source), (WAYS[2], small)):
        bundle = work / f"{checkpoint.name}-bundle"
        if not bundle.is_dir():
            _edgepress("export", str(checkpoint), "-o", str(bundle), "-q", "--no-validate")
        bundles[way] = Decoder.open(Bundle.open(bundle), threads=1)
    return transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval(), bundles


def _edgepress(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "edgepress", *arguments], check=True)


def by_torch(model: Any, ids: list[int]) -> Taken:
    """Greedy tokens of transformers: what one takes, and what the others take more."""
    taken = []
    for new in (1, 1 + NEW):
        began = time.perf_counter()
        with torch.inference_mode():
            model.generate(torch.tensor([ids]), max_new_tokens=new, min_new_tokens=new, do_sample=False)
        taken.append(time.perf_counter() - began)
    return taken[0], (taken[1] - taken[0]) / NEW


def by_bundle(decoder: Decoder, ids: list[int]) -> Taken:
    """The same of a bundle."""
    began = time.perf_counter()
    logits = decoder.prefill(ids, new_tokens=NEW)
    filled = time.perf_counter()
    for _ in range(NEW):
        logits = decoder.step(int(logits.argmax()))
    return filled - began, (time.perf_counter() - filled) / NEW


def measured(family: str, work: Path, rounds: int) -> dict[str, list[Taken]]:
    """What each way takes in each of so many rounds."""
    model, bundles = made(family, work)
    ids = np.random.default_rng(0).integers(3, _VOCABULARY, PROMPT).tolist()
    taken: dict[str, list[Taken]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        taken[WAYS[0]].append(by_torch(model, ids))
        for way, decoder in bundles.items():
            taken[way].append(by_bundle(decoder, ids))
    return taken


def row(family: str, taken: dict[str, list[Taken]]) -> list[str]:
    """Milliseconds of the prompt and of a token by each way, and how many times as fast the bundles are."""
    columns = [np.array(taken[way]) for way in WAYS]
    faster = [np.median(columns[0] / one, axis=0) for one in columns[1:]]
    return [
        family,
        *(f"{median(one[:, 0]) * 1000:.0f} · {median(one[:, 1]) * 1000:.1f}" for one in columns),
        *(f"{prompt:.2f} · {token:.2f}" for prompt, token in faster),
    ]


def spread(taken: dict[str, list[Taken]]) -> float:
    """By how much the least and the most of a ratio differ between the rounds, at most: a factor."""
    columns = [np.array(taken[way]) for way in WAYS]
    ratios = [columns[0] / one for one in columns[1:]]
    return float(max((one.max(axis=0) / one.min(axis=0)).max() for one in ratios))


def slower(rows: Sequence[Sequence[str]]) -> str:
    """Which of ``rows`` are slower than torch somewhere."""
    found = [
        f"{what} of {one[0]}, {way}"
        for one in rows
        for way, cell in zip(WAYS[1:], one[-2:], strict=True)
        for what, times in zip(("the prompt", "tokens"), cell.split(" · "), strict=True)
        if float(times) < 1
    ]
    return f"Slower than torch: {'; '.join(found) or 'none'}."


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    before = os.getloadavg()[0]
    taken = {family: measured(family, asked.work, asked.rounds) for family in FAMILIES}
    rows = [row(family, found) for family, found in taken.items()]
    apart = ", ".join(f"{family} {spread(found):.1f}" for family, found in taken.items())
    notes = [
        slower(rows),
        f"Between the rounds the times of a family differ by a factor of at most: {apart}.",
        f"Milliseconds of a prompt of {PROMPT} tokens · of each of {NEW} greedy tokens, medians of "
        f"{asked.rounds} rounds.",
        f"{_BLOCKS} blocks, {_HIDDEN} wide, a vocabulary of {_VOCABULARY}, random weights: a stand-in for "
        "speed, no evidence of quality. The bundles are exported without their proof, which the tests make.",
        f"Other programs ran beside it: load average {before:.1f} before, {os.getloadavg()[0]:.1f} after, "
        f"{os.cpu_count()} logical CPUs. Compare within a row.",
    ]
    path, title = asked.results / "states.md", "A state in the place of attention"
    header = ["family", *WAYS, *(f"{way}: times as fast as torch" for way in WAYS[1:])]
    write_table(path, title, f"{COMMAND} WORK", header, rows, notes, page="Models that carry a state")


if __name__ == "__main__":
    main()
