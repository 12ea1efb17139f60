"""How far each graph of the prefill check moves the model: from the original, and from its bundle's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....compress.text.corpus import texts_from
from ....export.proof.distances import divergence, log_softmax
from ....export.proof.drive import GraphDriver
from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.load import load_graph
from ...quality.held_out_text import measured_windows
from ...records.subjects import open_subject
from .prefill_arms import ROWS, filler

WINDOWS, FILLED, AFTER = 8, 256, 64


def distances(bundle: Bundle, work: Path, model: str) -> dict[str, list[str]]:
    """For each graph: KL from the original, and from the bundle without a prefill graph, over the tokens
    after a prompt that it filled the cache with.
    """
    original = open_subject(model, threads=1)
    texts = texts_from("wikipedia", split="held-out")
    length = FILLED + AFTER
    ids = measured_windows(original.tokenizer, texts, count=WINDOWS, length=length, placement="spread")
    wanted = [log_softmax(original.logits(row[None])[0, FILLED:]) for row in ids]
    driver = GraphDriver(load_graph(bundle, threads=1))
    found = {}
    for graph in dict.fromkeys(variant.graph for variant in ROWS if variant.graph != "packed"):
        session = filler(bundle, work, graph, 1)
        logits = [driver.logits(row[None], depth=FILLED, filler=session)[0] for row in ids]
        found[graph] = [log_softmax(row) for row in logits]
    own = found["own"]
    return {
        graph: [f"{_mean(wanted, rows):.4f}", "–" if graph == "own" else f"{_mean(own, rows):.4f}"]
        for graph, rows in found.items()
    }


def _mean(reference: list[NDArray[Any]], other: list[NDArray[Any]]) -> float:
    pairs = zip(reference, other, strict=True)
    return float(np.mean([divergence(theirs, ours).mean() for theirs, ours in pairs]))
