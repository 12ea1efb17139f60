"""llama.cpp: the GGUF file, one row at a time. llama-cpp-py-sync brings it built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..kinds import DECODER, MIXTURE

PACKAGES = ("llama-cpp-py-sync==0.11739", "numpy")
ARTIFACTS, KINDS = ("gguf",), (DECODER, MIXTURE)


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Greedy tokens, logits of the last token of each row, and the ids of texts; llama.cpp rounds what its
    products read.
    """
    import llama_cpp_py_sync

    (file,) = artifact.glob("*.gguf")
    model: Any = llama_cpp_py_sync.Llama(str(file), n_ctx=128, n_batch=128, n_threads=1)
    values, tokens = [], []
    for row in task["rows"]:
        model._clear_context_state()
        model._eval_tokens(row, 0)
        found = _logits(model)
        values.append(found.tolist())
        row_tokens: list[int] = []
        for place in range(task["new_tokens"]):
            row_tokens.append(int(found.argmax()))
            model._eval_tokens(row_tokens[-1:], len(row) + place)
            found = _logits(model)
        tokens.append(row_tokens)
    ids = [model.tokenize(text, add_special=True, parse_special=True) for text in task.get("written", [])]
    return {"values": values, "tokens": tokens, "ids": ids}


def _logits(model: Any) -> Any:
    """Those of the last token, which the package does not give out by itself."""
    import numpy as np

    pointer = model._lib.llama_get_logits_ith(model._ctx, -1)
    return np.frombuffer(model._ffi.buffer(pointer, 4 * model.n_vocab), np.float32).copy()
