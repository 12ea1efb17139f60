"""A start taken apart, in a fresh process: what each step costs when they come one after another.

    python -m edgepress.benchmarks.lab.programs.startup_child BUNDLE TOKENS

Prints one JSON document: CPU milliseconds by step, and memory in MB at the first token. Nothing is imported
before its own step.
"""

import json
import sys
import time
from pathlib import Path

STEPS = (
    "interpreter",
    "numpy and ONNX Runtime",
    "edgepress and tokenizers",
    "manifest and small files",
    "hash of the weights",
    "tokenizer",
    "session",
    "prompt",
)
_FIELDS = {"RssAnon": "heap", "RssFile": "mapped files", "VmHWM": "peak"}


class Steps:
    """CPU time of the process, cut into steps."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = 0.0

    def done(self, step: str) -> None:
        """The step that has just ended."""
        now = time.process_time()
        self.milliseconds[step] = 1000 * (now - self._last)
        self._last = now


def memory(status: Path = Path("/proc/self/status")) -> dict[str, float]:
    """Resident megabytes: heap, mapped files, and the peak of both; empty where the system does not say."""
    try:
        lines = status.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[key].split()[0]) * 1024 / 1e6 for key, name in _FIELDS.items() if key in found}


def main() -> None:
    """Take one start apart."""
    steps = Steps()
    steps.done("interpreter")
    import numpy
    import onnxruntime

    steps.done("numpy and ONNX Runtime")
    import tokenizers  # noqa: F401

    from ....runtime import api  # noqa: F401
    from ....runtime.bundle.bundle import Bundle
    from ....runtime.engine.decoder import Decoder
    from ....runtime.text.tokenizer import Tokenizer

    steps.done("edgepress and tokenizers")
    bundle = Bundle.open(sys.argv[1], weights_later=True)
    steps.done("manifest and small files")
    bundle.check_weights()
    steps.done("hash of the weights")
    Tokenizer.open(bundle.path)
    steps.done("tokenizer")
    decoder = Decoder.open(bundle)
    steps.done("session")
    ids = numpy.random.default_rng(0).integers(0, decoder.vocab_size, int(sys.argv[2])).tolist()
    decoder.prefill(ids, new_tokens=1)
    steps.done("prompt")
    document = {"cpu_ms": steps.milliseconds, "memory_mb": memory(), "onnxruntime": onnxruntime.__version__}
    print(json.dumps(document))


if __name__ == "__main__":
    main()
