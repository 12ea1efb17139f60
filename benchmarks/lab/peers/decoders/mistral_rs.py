"""mistral.rs: its wheel for CPUs, with the GGUF files that were made for llama.cpp.

It takes text and not token ids, and shows no token as it comes: the prompt is the text of the ids, and the
moments of first and last token follow from the times that it reports itself.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..contract import ConversionTask, DecoderVariant, DecodingEngine, EngineSettings, TimedTokens

TITLE = "mistral.rs"
PACKAGES = ("mistralrs==0.9.5", "tokenizers")
DISTRIBUTIONS = ("mistralrs",)
VARIANTS = {"q4-0": DecoderVariant("Q4_0", 4, 8), "q8-0": DecoderVariant("Q8_0", 8, 8)}


def convert(task: ConversionTask, variant: str) -> None:
    """Its tokenizer: the weights are llama.cpp's."""
    task.artifact.joinpath("tokenizer.json").write_bytes((task.checkpoint / "tokenizer.json").read_bytes())


def load(artifact: Path, variant: str, settings: EngineSettings) -> DecodingEngine:
    """The model with the threads set explicitly, and nothing kept from one request for the next."""
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    import mistralrs
    from tokenizers import Tokenizer

    (weights,) = artifact.with_name(f"llama-cpp-{variant}").glob("*.gguf")
    which = mistralrs.Which.GGUF(
        quantized_model_id=str(weights.parent),
        quantized_filename=weights.name,
        tokenizer_json=str(artifact / "tokenizer.json"),
    )
    runner = mistralrs.Runner(which=which, max_seqs=1, prefix_cache_n=0, token_source="none")
    return _Runner(runner, Tokenizer.from_file(str(artifact / "tokenizer.json")))


class _Runner:
    """Requests of the completion of a text, one after the other."""

    def __init__(self, runner: Any, tokenizer: Any) -> None:
        self._runner = runner
        self._tokenizer = tokenizer

    def generate(self, ids: Sequence[int], new_tokens: int) -> TimedTokens:
        """See :class:`DecodingEngine`; the tokens of a text are read from it and may not be as many."""
        import mistralrs

        request = mistralrs.CompletionRequest(
            prompt=self._tokenizer.decode(list(ids), skip_special_tokens=False),
            model="default",
            max_tokens=new_tokens,
            temperature=0.0,
            top_k=1,
            ignore_eos=True,
        )
        begin = time.perf_counter()
        reply = self._runner.send_completion_request(request)
        usage = reply.usage
        first, last = (
            usage.total_prompt_time_sec,
            usage.total_prompt_time_sec + usage.total_completion_time_sec,
        )
        tokens = self._tokenizer.encode(reply.choices[0].text, add_special_tokens=False).ids
        steps = max(usage.completion_tokens - 1, 1)
        found = TimedTokens(tokens=(tokens + [0] * new_tokens)[:new_tokens])
        found.moments = [begin + first + (last - first) * i / steps for i in range(new_tokens)]
        return found
