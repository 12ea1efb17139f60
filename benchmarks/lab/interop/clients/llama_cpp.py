"""llama.cpp: the GGUF file, one row at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..kinds import DECODER

PACKAGES = ("llama-cpp-python==0.3.36", "numpy")
ARTIFACTS, KINDS = ("gguf",), (DECODER,)


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Greedy tokens, and logits of the last token of each row; llama.cpp rounds what its products read."""
    import llama_cpp
    import numpy as np

    (file,) = artifact.glob("*.gguf")
    model = llama_cpp.Llama(str(file), n_ctx=128, n_batch=128, logits_all=True, verbose=False)
    values, tokens = [], []
    for row in task["rows"]:
        model.reset()
        model.eval(row)
        found = [np.array(model.scores[len(row) - 1])]
        values.append(found[0].tolist())
        row_tokens: list[int] = []
        for _ in range(task["new_tokens"]):
            row_tokens.append(int(np.argmax(model.scores[len(row) - 1 + len(row_tokens)])))
            model.eval(row_tokens[-1:])
        tokens.append(row_tokens)
    return {"values": values, "tokens": tokens}
