"""onnxruntime-genai: the bundle of standard operators as its model folder, a batch of unequal prompts."""

from pathlib import Path
from typing import Any

from ..kinds import DECODER, MIXTURE

PACKAGES = ("onnxruntime-genai==0.18.0", "onnxruntime==1.32.0", "numpy")
ARTIFACTS, KINDS = ("onnx",), (DECODER, MIXTURE)


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Rows are padded on the right, as its own tokenizer does."""
    import numpy as np
    import onnxruntime_genai as genai

    rows, longest, new = task["rows"], max(map(len, task["rows"])), task["new_tokens"]
    ids = np.full((len(rows), longest), task["pad"], np.int32)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    settings = genai.GeneratorParams(genai.Model(str(artifact)))
    settings.set_search_options(max_length=longest + new, min_length=longest + new, batch_size=len(rows))
    generator = genai.Generator(genai.Model(str(artifact)), settings)
    generator.append_tokens(ids)
    values = np.array(generator.get_output("logits"))[:, -1].tolist()
    while not generator.is_done():
        generator.generate_next_token()
    tokens = [[int(one) for one in generator.get_sequence(row)[longest:]] for row in range(len(rows))]
    return {"values": values, "tokens": tokens}
