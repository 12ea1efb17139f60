"""The comparison of encoders: MiniLM's sentences a second, edgepress against sentence-transformers' backends.

    python -m edgepress.benchmarks.lab.peers --place PLACE setup sentence-transformers
    python -m edgepress.benchmarks.lab.peers.encoder_speed PLACE [benchmarks/lab/results]

What is made stays below PLACE. All variants are loaded at once, a process each, and are interleaved: in a
round each embeds the same sentences, tokenizing included. Raw lines are kept beside the table.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, Self

import numpy as np

from ....compress.model.models import resolve
from ....compress.text.corpus import texts_from
from ....devices.state import disturbance, read_state
from ....files.storage import write_atomic, write_json
from ....runtime.text.tokenizer import Tokenizer
from ...quality.held_out_text import measured_sentences
from ..study.page import write_table
from .children import command, job_line, variables, work
from .lines import require_quiet
from .workspace import Workspace, peers, trouble

MODEL = "minilm"
LENGTHS, TOKENS, BATCH = (16, 64, 256), 8192, 32
REFERENCE = "sentence-transformers torch"
OURS = "edgepress W8A8"
# How much faster ours is to be: than the same arithmetic in OpenVINO alone, and than what most people run.
TARGETS = {"OpenVINO int8": 1.2, REFERENCE: 5.0}
COMMAND = "python -m edgepress.benchmarks.lab.peers.encoder_speed PLACE benchmarks/lab/results"
TIMEOUT = 3600.0

RateByName = dict[str, list[float]]
Rates = dict[tuple[int, int], RateByName]


@dataclass
class EncoderProcess:
    """A loaded model in a process of its own."""

    name: str
    child: subprocess.Popen[str]
    versions: dict[str, str]

    @classmethod
    def start(
        cls, workspace: Workspace, peer: str, module: ModuleType, variant: str, artifact: Path, threads: int
    ) -> Self:
        """Start it and wait until it is loaded."""
        environment = variables(module, threads)
        del environment["TOKENIZERS_PARALLELISM"]  # tokenizing is timed: threads as a user has them
        pipe, arguments = subprocess.PIPE, command(workspace, peer, module)
        child = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True, env=environment)
        job = {"do": "measure", "variant": variant, "artifact": str(artifact), "threads": threads}
        started = cls(f"{module.TITLE} {variant}", child, {})
        reply = started.ask(job_line(peer, module, job), "could not be loaded")
        return replace(started, versions=reply["versions"])

    def ask(self, line: str, failure: str) -> dict[str, Any]:
        """The reply to a line."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        with suppress(BrokenPipeError):  # it has ended: there is no reply either
            self.child.stdin.write(line)
            self.child.stdin.flush()
        reply = self.child.stdout.readline()
        if not reply:
            self.child.communicate()
            raise SystemExit(f"{self.name} {failure}")
        found: dict[str, Any] = json.loads(reply)
        return found

    def encode(self, sentences: Sequence[str], *, vectors: bool = False) -> dict[str, Any]:
        """Seconds, and vectors where they are wanted."""
        job = {"sentences": list(sentences), "batch_size": BATCH, "vectors": vectors}
        return self.ask(json.dumps(job) + "\n", "ended instead of replying")

    def stop(self) -> None:
        """End the process."""
        self.child.communicate()


def sentences_of(tokenizer: Tokenizer, length: int, count: int) -> list[str]:
    """``count`` texts of held-out Wikipedia of ``length`` tokens or just less, special ones included."""
    words = " ".join(texts_from("wikipedia", split="held-out")).split()
    found: list[str] = []
    start = 0
    while len(found) < count:
        size = length
        while len(tokenizer.encode(" ".join(words[start : start + size]))) > length:
            size -= 1
        found.append(" ".join(words[start : start + size]))
        start = (start + size) % (len(words) - length)
    return found


def prepare(workspace: Workspace, artifacts: Path) -> None:
    """Make every variant's files."""
    artifacts.mkdir(parents=True, exist_ok=True)
    texts = artifacts / "texts.json"
    chosen = measured_sentences(texts_from("wikipedia"), count=128, placement="spread")
    write_json(texts, chosen)
    for peer, module in peers("encoders").items():
        job = {"do": "convert", "checkpoint": str(resolve(MODEL).path), "calibration": str(texts)}
        job["artifact"] = str(artifacts / peer)
        (artifacts / peer).mkdir(exist_ok=True)
        for variant in module.VARIANTS:
            error = trouble(workspace, peer, module)
            error = error or work(workspace, peer, module, {**job, "variant": variant}, timeout=TIMEOUT).error
            if error:
                raise SystemExit(f"{module.TITLE} {variant}: {error}")


def interleaved(running: Sequence[EncoderProcess], sentences: Sequence[str], rounds: int) -> RateByName:
    """Sentences a second by name, after a pass to warm up; every other round is in reverse."""
    rates: RateByName = {one.name: [] for one in running}
    for one in running:
        one.encode(sentences)
    for number in range(rounds):
        for one in running if number % 2 == 0 else reversed(running):
            rates[one.name].append(len(sentences) / one.encode(sentences)["seconds"])
    return rates


def cosines(running: Sequence[EncoderProcess], sentences: Sequence[str]) -> dict[str, float]:
    """Mean cosine of each one's vectors to those of the reference."""
    vectors = {one.name: np.array(one.encode(sentences, vectors=True)["vectors"]) for one in running}
    units = {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in vectors.items()}
    return {name: float((unit * units[REFERENCE]).sum(axis=1).mean()) for name, unit in units.items()}


def bars(rates: Rates) -> list[str]:
    """A sentence for each setting and peer with a target: our W8A8 over the peer's."""
    sentences = []
    for (threads, length), found in rates.items():
        for peer, target in TARGETS.items():
            ours, theirs = median(found[OURS]), median(found[peer])
            verdict = "met" if ours / theirs >= target else "missed"
            sentences.append(
                f"{threads} t, length {length}: {OURS} {ours:.0f} over {peer} {theirs:.0f} = "
                f"{ours / theirs:.2f} (target {target:g}: {verdict})."
            )
    return sentences


def rows_of(rates: Rates, same: dict[str, float]) -> list[list[str]]:
    """The table: a variant a row, settings in columns."""
    names = next(iter(rates.values()))
    return [
        [name, f"{same[name]:.4f}", *(f"{median(found[name]):.0f}" for found in rates.values())]
        for name in names
    ]


@dataclass
class EncoderMeasurement:
    """Rates by threads and length, cosines to the reference, and the versions of all tools."""

    rates: Rates = field(default_factory=dict)
    same: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, running: Sequence[EncoderProcess], threads: int, rounds: int) -> None:
        """Measure loaded models at all lengths."""
        tokenizer = Tokenizer.open(resolve(MODEL).path)
        for length in LENGTHS:
            sentences = sentences_of(tokenizer, length, TOKENS // length)
            self.rates[threads, length] = interleaved(running, sentences, rounds)
        self.same = self.same or cosines(running, sentences_of(tokenizer, 64, 64))
        for one in running:
            self.versions |= one.versions

    def lines(self) -> list[dict[str, Any]]:
        """The raw lines."""
        return [
            {"arm": name, "threads": threads, "length": length, "sentences_s": values}
            for (threads, length), found in self.rates.items()
            for name, values in found.items()
        ]


def measure(workspace: Workspace, artifacts: Path, threads: Sequence[int], rounds: int) -> EncoderMeasurement:
    """Load every variant with each number of threads, and measure them together."""
    found = EncoderMeasurement()
    for count in threads:
        running = [
            EncoderProcess.start(workspace, peer, module, variant, artifacts / peer, count)
            for peer, module in peers("encoders").items()
            for variant in module.VARIANTS
        ]
        found.add(running, count, rounds)
        for one in running:
            one.stop()
    return found


def main() -> None:
    """The command line of this comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prepare-only", action="store_true")
    parser.add_argument("--disturbed", action="store_true", help="write it even if other work was in the way")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.place.absolute())
    artifacts = workspace.root / "encoders"
    prepare(workspace, artifacts)
    if arguments.prepare_only:
        return
    before = read_state()
    found = measure(workspace, artifacts, arguments.threads, arguments.rounds)
    reasons = disturbance(before, read_state())[1]
    if not arguments.disturbed:
        require_quiet(reasons)
    raw = arguments.results / "raw" / "encoder-speed.jsonl"
    raw.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(raw, "".join(json.dumps(line) + "\n" for line in found.lines()).encode())
    header = ["arm", "cosine to torch", *(f"{length} tokens, {threads} t" for threads, length in found.rates)]
    notes = [
        f"Sentences per second, tokenizing included; {TOKENS} tokens per pass, batch size {BATCH} (sentence-"
        f"transformers' default), medians of {arguments.rounds} interleaved rounds, all loaded at "
        "once. Sentences: held-out Wikipedia cut to the length, special tokens included. t: threads.",
        "By default OpenVINO computes a float32 model in bfloat16 where the CPU supports it.",
        *bars(found.rates),
        f"Disturbances: {'; '.join(reasons) or 'none'}.",
        f"Peers: {', '.join(f'{name} {number}' for name, number in sorted(found.versions.items()))}.",
    ]
    path = arguments.results / "peers-encoders.md"
    rows = rows_of(found.rates, found.same)
    write_table(path, "Encoder speed: all-MiniLM-L6-v2", COMMAND, header, rows, notes)


if __name__ == "__main__":
    main()
