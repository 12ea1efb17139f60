"""The arms of the prefill check: graphs that fill a cache, each behind a decoder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ....runtime.bundle.bundle import Bundle
from ....runtime.engine import decoder as decoder_module
from ....runtime.engine import prefill as prefill_module
from ....runtime.engine.decoder import Decoder
from ....runtime.engine.load import load_graph
from ....runtime.engine.prefill import Prefill
from ....runtime.prepack import prepacked
from ....runtime.prepack.int8_weights import make_int8_weights
from ....runtime.session.session import PREFILL, PREFILL_PACKED, open_session
from .prefill_variants import VARIANTS

# Graphs whose weights the prepacked cache has, and how they are opened.
STORED = {"int8": PREFILL, "packed": PREFILL_PACKED}
_PAUSE = 0.01  # seconds in which the threads of the variant before stop spinning


@dataclass(frozen=True)
class Variant:
    """A row: its name, which graph fills the cache, and how many tokens go through it at once."""

    name: str
    graph: str
    chunk: int


OWN = Variant("own graph, MatMulNBits 4-bit, chunks of 128", "own", 128)
SHIPPED = Variant("prefill graph, int8, chunks of 256", "int8", 256)
ROWS = (
    OWN,
    Variant("own graph, chunks of 256", "own", 256),
    Variant("prefill graph, int8, chunks of 128", "int8", 128),
    SHIPPED,
    Variant("prefill graph, int8, chunks of 512", "int8", 512),
    Variant("prefill graph, int8, weights packed, chunks of 128", "packed", 128),
    Variant("prefill graph, int8, weights packed, chunks of 256", "packed", 256),
    Variant("prefill graph, int8, attention in tiles, weights packed, chunks of 128", "tiles", 128),
    Variant("rows divided by their peaks, DynamicQuantizeMatMul, 256", "rows", 256),
    Variant("MatMulNBits 8-bit in blocks of 256, 256", "blocks", 256),
)


def filler(bundle: Bundle, work: Path, graph: str, threads: int) -> Any:
    """A session over the graph of a variant; None for the model's own."""
    if graph == "own":
        return None
    assert bundle.prefill is not None
    if graph in STORED:
        entry = prepacked.find(bundle)
        assert entry is not None
        return open_session(entry.prefill, threads=threads, config=STORED[graph], optimize=False)
    weights = make_int8_weights(bundle.path / bundle.prefill.file, bundle.graph, bundle.prefill.linears)
    folder = work / graph
    folder.mkdir(exist_ok=True)
    data = folder / f"{bundle.graph.name}.data"
    if bundle.weight_files and not data.exists():
        shutil.copyfile(bundle.graph.with_name(data.name), data)
    path = folder / "prefill.onnx"
    given = VARIANTS[graph](bundle.path / bundle.prefill.file, path, weights)
    return open_session(path, threads=threads, config=PREFILL_PACKED, weights=given)


def opening_ms(bundle: Bundle, work: Path, graph: str, times: int = 5) -> float:
    """Milliseconds until the session of a graph is made, at one thread: the median of some ``times``."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        filler(bundle, work, graph, 1)
        found.append(1000 * (time.perf_counter() - start))
    return median(found)


class Arms:
    """One decoder for each graph, over one session of the model's own."""

    def __init__(self, bundle: Bundle, work: Path, threads: int) -> None:
        session = load_graph(bundle, threads=threads)
        self.decoders = {}
        for graph in dict.fromkeys(variant.graph for variant in ROWS):
            found = filler(bundle, work, graph, threads)
            graphs = None if found is None else Prefill(lambda _, session=found: session)  # type: ignore[misc]
            if graphs is not None:
                graphs.session()
            self.decoders[graph] = Decoder(session, bundle.decoder, prefill_graph=graphs)

    def rate(self, variant: Variant, ids: Sequence[int]) -> float:
        """Tokens a second, once."""
        decoder_module.PREFILL_CHUNK = prefill_module.PREFILL_CHUNK = variant.chunk
        time.sleep(_PAUSE)
        start = time.perf_counter()
        self.decoders[variant.graph].prefill(ids)
        return len(ids) / (time.perf_counter() - start)
