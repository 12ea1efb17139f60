"""OpenVINO without a wrapper: the int8 graph that sentence-transformers' backend made, run by itself.

Tokenizing by ``tokenizers``, the mean over the tokens in numpy: what is left is the engine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..contract import EmbedSentences, EncoderConversionTask

TITLE = "OpenVINO"
PACKAGES = ("openvino==2026.4.1", "tokenizers", "numpy")
DISTRIBUTIONS = ("openvino", "tokenizers")
VARIANTS = {"int8": "openvino/openvino_model_qint8_quantized.xml"}
LONGEST = 256


def convert(task: EncoderConversionTask, variant: str) -> None:
    """Nothing: the files are those of sentence-transformers, beside its own."""


def load(artifact: Path, variant: str, threads: int) -> EmbedSentences:
    """The compiled graph, asked for the latency of one call, as sentence-transformers' row is."""
    import numpy as np
    import openvino
    from tokenizers import Tokenizer

    folder = artifact.parent / "sentence_transformers" / "openvino"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    graph = openvino.Core().compile_model(str(folder / VARIANTS[variant]), "CPU", settings)
    inputs = {one.get_any_name() for one in graph.inputs}

    def embed(sentences: Sequence[str], batch_size: int) -> Any:
        parts = []
        for start in range(0, len(sentences), batch_size):
            rows = tokenizer.encode_batch(list(sentences[start : start + batch_size]))
            mask = np.array([row.attention_mask for row in rows], np.int64)
            feed = {"input_ids": np.array([row.ids for row in rows], np.int64), "attention_mask": mask}
            feed["token_type_ids"] = np.zeros_like(mask)
            hidden = graph({name: feed[name] for name in inputs})[0]
            weights = mask[:, :, None].astype(np.float32)
            mean = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
            parts.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
        return np.concatenate(parts)

    return embed
