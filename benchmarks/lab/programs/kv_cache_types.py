"""Key/value caches of every type on SmolLM2 with the same 4-bit weights: what each costs, and what it saves.

    python -m edgepress.benchmarks.lab.programs.kv_cache_types WORK [RESULTS] [--rounds 12] [--untimed]

Every checkpoint and bundle is made by the command line a user would type and stays in WORK, so that an
interrupted check goes on where it was; so do the distances, after which ``--untimed`` stops. All bundles are
timed in turns in one process: in a round each runs the same prompt and the same number of new tokens, and
ratios are of pairs in one round.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....compress.text.corpus import texts_from
from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.decoder import Decoder
from ....runtime.session.threads import thread_budget
from ....storage import read_json, write_json
from ...quality.accuracy import score_windows
from ...quality.held_out_text import measured_windows
from ...records.bundle_subject import BundleSubject
from ...records.subjects import TokenModel, open_subject
from ...speed.paired import compare_rates
from .interleaved import after_a_first_run
from .results_page import write_table

MODEL = "smollm2"
WINDOWS, LENGTH = 8, 512
PROMPTS, NEW_TOKENS = (128, 1024), 64
CALIBRATION = "--calibration wikipedia --samples 16 --length 512"
COMMAND = "python -m edgepress.benchmarks.lab.programs.kv_cache_types WORK benchmarks/lab/results"


@dataclass(frozen=True)
class Variant:
    """A row: its name, the pass that finds its scales (if any), and how it is exported."""

    name: str
    step: str = ""
    kv: str = "fp32"

    @property
    def checkpoint(self) -> str:
        """Where its weights and scales are."""
        return self.name if self.step else "w4"


PLAIN = Variant("fp32")
VARIANTS = (
    PLAIN,
    Variant("fp16", kv="fp16"),
    Variant("int8-channel", "kv_cache, bits: 8, granularity: per-channel", "int8"),
    Variant("int8-tensor", "kv_cache, bits: 8, granularity: per-tensor", "int8"),
    Variant("int4-channel", "kv_cache, bits: 4, granularity: per-channel", "int4"),
    Variant("int4-tensor", "kv_cache, bits: 4, granularity: per-tensor", "int4"),
)


def edgepress(command: str) -> None:
    """Run a command line of this package."""
    print(f"$ edgepress {command}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "edgepress", *shlex.split(command)], check=True)


def made(work: Path, variant: Variant) -> Path:
    """The bundle of a variant, made if it is not there. All have the weights of one run of GPTQ."""
    weights, checkpoint, bundle = work / "w4", work / variant.checkpoint, work / f"{variant.name}-onnx"
    if not weights.exists():
        edgepress(f"compress {MODEL} -r w4a16-gptq {CALIBRATION} -o {weights} -q")
    if not checkpoint.exists():
        recipe = work / f"{variant.name}.yaml"
        recipe.write_text(f"name: {variant.name}\npasses:\n  - {{pass: {variant.step}}}\n")
        edgepress(f"compress {weights} -r {recipe} {CALIBRATION} -o {checkpoint} -q")
    if not bundle.exists():
        edgepress(f"export {checkpoint} --kv {variant.kv} -o {bundle} -q")
    return bundle


class Remembered:
    """A subject that runs each window once, however often it is compared."""

    def __init__(self, subject: TokenModel) -> None:
        self.tokenizer, self._subject = subject.tokenizer, subject
        self._logits: dict[bytes, NDArray[np.float32]] = {}

    def logits(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """As the subject's."""
        key = input_ids.tobytes()
        if key not in self._logits:
            self._logits[key] = self._subject.logits(input_ids)
        return self._logits[key]


def quality(bundles: dict[Variant, Path], windows: int) -> dict[Variant, list[str]]:
    """Perplexity, KL and top-1 of each against the original, and KL against the float32 cache."""
    original = Remembered(open_subject(MODEL, threads=thread_budget()))
    texts = texts_from("wikipedia", split="held-out")
    ids = measured_windows(original.tokenizer, texts, count=windows, length=LENGTH, placement="spread")
    plain = Remembered(BundleSubject(bundles[PLAIN]))
    cells = {}
    for variant, bundle in bundles.items():
        subject = plain if variant == PLAIN else Remembered(BundleSubject(bundle))
        against = score_windows(subject, original, ids)
        found = {name: scores.of_subject() for name, scores in against.items()}
        alone = score_windows(subject, plain, ids)["kl"].of_subject()
        cells[variant] = [
            f"{found['perplexity'].value:.2f}",
            f"{found['kl'].value:.4f}",
            f"{found['top1_agreement'].value:.3f}",
            "–" if variant == PLAIN else f"{alone.value:.5f}",
        ]
        print(variant.name, cells[variant], file=sys.stderr, flush=True)
    return cells


def turn(decoder: Decoder, ids: Sequence[int]) -> tuple[float, float]:
    """Tokens a second of prefill and of decoding, once."""
    start = time.perf_counter()
    logits = decoder.prefill(ids, new_tokens=NEW_TOKENS)
    middle = time.perf_counter()
    for _ in range(NEW_TOKENS):
        logits = decoder.step(int(logits.argmax()))
    return len(ids) / (middle - start), NEW_TOKENS / (time.perf_counter() - middle)


def speed(bundles: dict[Variant, Path], rounds: int) -> dict[Variant, list[str]]:
    """For each prompt: tokens a second of prefill and decoding, and the ratios to the float32 cache."""
    decoders = {v: after_a_first_run(Bundle.open(path)) for v, path in bundles.items()}
    cells: dict[Variant, list[str]] = {variant: [] for variant in bundles}
    for length in PROMPTS:
        vocab = decoders[PLAIN].vocab_size
        ids = np.random.default_rng(length).integers(0, vocab, length).tolist()
        rates: dict[Variant, list[tuple[float, float]]] = {variant: [] for variant in bundles}
        for decoder in decoders.values():
            turn(decoder, ids)
        for number in range(rounds):
            order = list(bundles) if number % 2 == 0 else list(bundles)[::-1]
            for variant in order:
                rates[variant].append(turn(decoders[variant], ids))
        for variant in bundles:
            for phase in (0, 1):
                mine = [pair[phase] for pair in rates[variant]]
                cells[variant].append(_shown(mine, [pair[phase] for pair in rates[PLAIN]], variant == PLAIN))
        print(length, {v.name: cells[v][-2:] for v in bundles}, file=sys.stderr, flush=True)
    return cells


def _shown(mine: list[float], plain: list[float], is_plain: bool) -> str:
    if is_plain:
        return f"{np.median(mine):.0f}"
    found = compare_rates(mine, plain)
    if found.ratio_median is None or found.ci95 is None:
        return f"{np.median(mine):.0f}"
    low, high = found.ci95
    return f"{np.median(mine):.0f}, × {found.ratio_median:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--untimed", action="store_true", help="distances only")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    bundles = {variant: made(arguments.work, variant) for variant in VARIANTS}
    kept = arguments.work / "quality.json"
    if not kept.exists():
        found = quality(bundles, arguments.windows)
        write_json(kept, {variant.name: cells for variant, cells in found.items()})
    if arguments.untimed:
        return
    judged, timed = read_json(kept), speed(bundles, arguments.rounds)
    rows = []
    for variant, path in bundles.items():
        per_token = Bundle.open(path).decoder.kv_bytes_per_token
        size = [f"{per_token:,}", f"{per_token * 1024 / 1e6:.1f}"]
        rows.append([variant.name, *size, *judged[variant.name], *timed[variant]])
    header = ["cache", "bytes a token", "MB at 1024 tokens", "ppl", "KL", "top-1", "KL of the cache alone"]
    header += [f"{phase} tok/s at {length}" for length in PROMPTS for phase in ("prefill", "decode")]
    notes = [
        "Model: SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid; weights W4A16-g64 GPTQ, "
        f"the same in every row. Scales: `search: mse`, {CALIBRATION}.",
        f"KL: KL(original ‖ row) and KL(fp32 cache ‖ row), mean over {arguments.windows} windows of {LENGTH} "
        "tokens of held-out Wikipedia, from an empty cache: every token reads keys and values as the cache "
        "gives them back.",
        f"Speed: prompts of random tokens, {NEW_TOKENS} new tokens, {thread_budget()} threads, batch 1; "
        f"medians of {arguments.rounds} rounds, ratio to the fp32 cache in the same round [95 %].",
    ]
    write_table(
        arguments.results / "kv-cache.md", "Key/value caches of SmolLM2-135M", COMMAND, header, rows, notes
    )


if __name__ == "__main__":
    main()
