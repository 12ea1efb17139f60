"""edgepress as an arm of the comparison of encoders: the same questions and answers as the peer's worker.

python -m edgepress.benchmarks.lab.peers.encoder_worker BUNDLE --threads 2
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.encoder import Encoder


def main() -> None:
    """Answer each line ``{"sentences": […], "batch_size": 32}`` of stdin until it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    asked = parser.parse_args()
    encoder = Encoder.open(Bundle.open(asked.bundle), asked.threads)
    found = {name: version(name) for name in ("edgepress", "onnxruntime")}
    print(json.dumps({"versions": found}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        began, cpu = time.perf_counter(), time.process_time()
        vectors = encoder.encode(job["sentences"], job["batch_size"])
        answer: dict[str, Any] = {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
        }
        if job.get("vectors"):
            answer["vectors"] = vectors.astype("float64").tolist()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
