"""The child process that builds the tokenizer of a GGUF file (``runtime/text/worker.py``).

It imports nothing of edgepress.
"""

from typing import Any

# transformers imports it when it reads a file: by then its libraries, gigabytes of addresses where it is
# built for CUDA, would count as what the file takes.
import torch  # noqa: F401
from transformers import PreTrainedTokenizerFast


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Save the tokenizer of ``file`` in the directory ``target``; ``model`` is an empty directory."""
    # The tokenizer of the file, of whatever family: AutoTokenizer asks for a config of those that it knows.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(asked["model"], gguf_file=asked["file"])
    tokenizer.save_pretrained(asked["target"])
    return {}
