"""The comparison of encoders: MiniLM's sentences a second, edgepress against sentence-transformers' backends.

    python -m edgepress.benchmarks.lab.peers.encoders PLACE ENVIRONMENT/bin/python [benchmarks/lab/results]

ENVIRONMENT is made as :mod:`.sentence_transformers_peer` says. What is made stays below PLACE. All arms are
loaded at once, a process each, and take turns: in a round each embeds the same sentences, tokenizing
included. Raw lines are kept beside the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np

from ....compress.model.models import resolve
from ....compress.text.corpus import texts_from
from ....devices.state import disturbance, read_state
from ....runtime.text.tokenizer import Tokenizer
from ....storage import write_atomic
from ...quality.held_out_text import measured_sentences
from ..programs.results_page import write_table
from .sentence_transformers_peer import VARIANTS

MODEL = "minilm"
LENGTHS, TOKENS, BATCH = (16, 64, 256), 8192, 32
TARGET = 1.5
REFERENCE = "sentence-transformers torch"
COMMAND = "python -m edgepress.benchmarks.lab.peers.encoders PLACE PYTHON benchmarks/lab/results"
OURS = {
    "edgepress fp32": None,
    "edgepress W8A8": "name: w8a8\npasses:\n  - {pass: w8a8}\n",
    "edgepress W4A16-g64": "name: w4\npasses:\n  - {pass: rtn, scheme: W4A16-g64}\n",
}

Rates = dict[tuple[int, int], dict[str, list[float]]]


@dataclass
class Arm:
    """A loaded model in a process of its own."""

    name: str
    child: subprocess.Popen[str]
    versions: dict[str, str]

    @classmethod
    def start(cls, name: str, command: Sequence[str], threads: int) -> Self:
        """Start it and wait until it is loaded."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            child.communicate()
            raise SystemExit(f"{name} could not be loaded")
        return cls(name, child, json.loads(line)["versions"])

    def encode(self, sentences: Sequence[str], *, vectors: bool = False) -> dict[str, Any]:
        """What it answers: seconds, and vectors when they are asked for."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        job = {"sentences": list(sentences), "batch_size": BATCH, "vectors": vectors}
        self.child.stdin.write(json.dumps(job) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended instead of answering")
        answer: dict[str, Any] = json.loads(line)
        return answer

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


def prepare(place: Path, python: Path) -> dict[str, list[str]]:
    """Make every arm's files; returns the command of each arm, without its threads."""
    place.mkdir(parents=True, exist_ok=True)
    commands = {}
    for name, recipe in OURS.items():
        folder = place / name.replace(" ", "-").lower()
        source, bundle = MODEL, folder / "bundle"
        if not bundle.exists():
            if recipe is not None:
                folder.mkdir(exist_ok=True)
                (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
                source = str(folder / "checkpoint")
                _edgepress("compress", MODEL, "-r", str(folder / "recipe.yaml"), "-o", source, "-q")
            _edgepress("export", source, "-o", str(bundle), "-q")
        commands[name] = [sys.executable, "-m", f"{__package__}.encoder_worker", str(bundle)]
    script, peers = str(Path(__file__).with_name("sentence_transformers_peer.py")), place / "peers"
    texts = place / "texts.json"
    chosen = measured_sentences(texts_from("wikipedia"), count=128, placement="spread")
    texts.write_text(json.dumps(chosen), encoding="utf-8")
    source = str(resolve(MODEL).path)
    subprocess.run([str(python), script, "prepare", source, str(peers), str(texts)], check=True)
    for variant in VARIANTS:
        commands[f"sentence-transformers {variant}"] = [str(python), script, "serve", str(peers), variant]
    return commands


def _edgepress(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "edgepress", *arguments], check=True)


def in_turns(arms: Sequence[Arm], sentences: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Sentences a second by arm, after a pass to warm up; the order turns round in every other round."""
    rates: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for arm in arms:
        arm.encode(sentences)
    for number in range(rounds):
        for arm in arms if number % 2 == 0 else reversed(arms):
            rates[arm.name].append(len(sentences) / arm.encode(sentences)["seconds"])
    return rates


def cosines(arms: Sequence[Arm], sentences: Sequence[str]) -> dict[str, float]:
    """Mean cosine of each arm's vectors to those of the reference."""
    vectors = {arm.name: np.array(arm.encode(sentences, vectors=True)["vectors"]) for arm in arms}
    units = {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in vectors.items()}
    return {name: float((unit * units[REFERENCE]).sum(axis=1).mean()) for name, unit in units.items()}


def bars(rates: Rates) -> list[str]:
    """A sentence for each setting: our best over the best peer's."""
    said = []
    for (threads, length), found in rates.items():
        ours, peer = (
            max((median(values), name) for name, values in found.items() if name.startswith("edge") == mine)
            for mine in (True, False)
        )
        ratio = ours[0] / peer[0]
        verdict = "met" if ratio >= TARGET else "missed"
        said.append(
            f"{threads} t, length {length}: {ours[1]} {ours[0]:.0f} over {peer[1]} {peer[0]:.0f} = "
            f"{ratio:.2f} (target {TARGET}: {verdict})."
        )
    return said


def rows_of(rates: Rates, same: dict[str, float]) -> list[list[str]]:
    """The table: an arm a row, settings in columns."""
    names = next(iter(rates.values()))
    return [
        [name, f"{same[name]:.4f}", *(f"{median(found[name]):.0f}" for found in rates.values())]
        for name in names
    ]


def main() -> None:
    """The command line of this comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", type=Path)
    parser.add_argument("python", type=Path, help="the interpreter of the peer's environment")
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prepare-only", action="store_true")
    asked = parser.parse_args()
    commands = prepare(asked.place.absolute(), asked.python.absolute())
    if asked.prepare_only:
        return
    tokenizer = Tokenizer.open(resolve(MODEL).path)
    texts = {length: sentences_of(tokenizer, length, TOKENS // length) for length in LENGTHS}
    before, lines, rates = read_state(), [], {}
    found: dict[str, str] = {}
    same: dict[str, float] = {}
    for threads in asked.threads:
        arms = [Arm.start(name, [*c, "--threads", str(threads)], threads) for name, c in commands.items()]
        for length, sentences in texts.items():
            rates[threads, length] = in_turns(arms, sentences, asked.rounds)
            for name, values in rates[threads, length].items():
                lines.append({"arm": name, "threads": threads, "length": length, "sentences_s": values})
        same = same or cosines(arms, texts[64][:64])
        for arm in arms:
            found |= arm.versions
            arm.stop()
    reasons = disturbance(before, read_state())[1]
    raw = asked.results / "raw" / "encoder-speed.jsonl"
    raw.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(raw, "".join(json.dumps(line) + "\n" for line in lines).encode())
    header = ["arm", "cosine to torch", *(f"{length} tokens, {threads} t" for threads, length in rates)]
    notes = [
        f"Sentences a second, tokenizing included; {TOKENS} tokens a pass, batch size {BATCH} (sentence-"
        f"transformers' default), medians of {asked.rounds} rounds in turns, all arms loaded. Sentences: "
        "held-out Wikipedia cut to the length, special tokens included. t: threads.",
        "OpenVINO computes a float32 model in bfloat16 where the CPU is made for it, by its own default.",
        *bars(rates),
        f"Disturbances: {'; '.join(reasons) or 'none'}.",
        f"Peers: {', '.join(f'{name} {number}' for name, number in sorted(found.items()))}.",
    ]
    path = asked.results / "encoder-speed.md"
    write_table(path, "Encoder speed: all-MiniLM-L6-v2", COMMAND, header, rows_of(rates, same), notes)


if __name__ == "__main__":
    main()
