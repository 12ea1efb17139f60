"""llama.cpp: the GGUF file, one row at a time. llama-cpp-py-sync brings it built."""

from pathlib import Path
from typing import Any

from ..kinds import DECODER, ENCODER, MIXTURE, STATES, TEXT_TO_TEXT

PACKAGES = ("llama-cpp-py-sync==0.11739", "numpy")
ARTIFACTS, KINDS = ("gguf",), (DECODER, MIXTURE, STATES, ENCODER, TEXT_TO_TEXT)


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Greedy tokens and logits of the last token of each row, or of the first that is written behind it; of
    an encoder the row's vector, pooled as the file says; and the ids of texts. llama.cpp rounds what its
    products read.
    """
    import llama_cpp_py_sync

    (file,) = artifact.glob("*.gguf")
    model: Any = llama_cpp_py_sync.Llama(str(file), n_ctx=128, n_batch=128, n_threads=1)
    found = (
        _written(model, task) if task["decodes"] else {"values": [_pooled(model, r) for r in task["rows"]]}
    )
    ids = [model.tokenize(text, add_special=True, parse_special=True) for text in task.get("written", [])]
    return {**found, "ids": ids}


def _written(model: Any, task: dict[str, Any]) -> dict[str, Any]:
    values, tokens = [], []
    if model._model_metadata()["general.architecture"] == "lfm2":
        # The package asks for states too, and llama.cpp gives no logits of this family then. Where it is not
        # asked for them some others, such as Nemotron, OLMo 2 and StableLM, end the process.
        model._lib.llama_set_embeddings(model._ctx, False)
    for row in task["rows"]:
        model._clear_context_state()
        begin = row
        if "start" in task:
            _encode(model, row)
            begin = [task["start"]]
        model._eval_tokens(begin, 0)
        found = _logits(model)
        values.append(found.tolist())
        row_tokens: list[int] = []
        for place in range(task["new_tokens"]):
            row_tokens.append(int(found.argmax()))
            model._eval_tokens(row_tokens[-1:], len(begin) + place)
            found = _logits(model)
        tokens.append(row_tokens)
    return {"values": values, "tokens": tokens}


def _pooled(model: Any, row: list[int]) -> list[float]:
    """The vector of a row of tokens, which the package gives of texts alone."""
    _encode(model, row)
    return _floats(model, model._lib.llama_get_embeddings_seq(model._ctx, 0), model.n_embd)


def _encode(model: Any, row: list[int]) -> None:
    """What an encoder gives of a row of tokens stays in the model."""
    batch = model._lib.llama_batch_init(len(row), 0, 1)
    try:
        batch.n_tokens = len(row)
        for place, token in enumerate(row):
            batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        if model._lib.llama_encode(model._ctx, batch) != 0:
            raise RuntimeError("llama_encode failed")
    finally:
        model._lib.llama_batch_free(batch)


def _logits(model: Any) -> Any:
    """Those of the last token, which the package does not give out by itself."""
    import numpy as np

    return np.array(_floats(model, model._lib.llama_get_logits_ith(model._ctx, -1), model.n_vocab))


def _floats(model: Any, pointer: Any, count: int) -> list[float]:
    import numpy as np

    found: list[float] = np.frombuffer(model._ffi.buffer(pointer, 4 * count), np.float32).tolist()
    return found
