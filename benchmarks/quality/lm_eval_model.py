"""A bundle as a model of lm-evaluation-harness: ``lm_eval --model edgepress --model_args bundle=DIR``.

Its releases up to 0.4.13 know no models from outside; with them, this module runs the harness's own command
line: ``python -m edgepress.benchmarks.quality.lm_eval_model --model edgepress --model_args bundle=DIR …``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from ...errors import InputError
from ...runtime.api import TextModel
from ...runtime.bundle.bundle import Bundle
from ...runtime.engine.generate import MAX_NEW_TOKENS


@register_model("edgepress")
class EdgepressLM(TemplateLM):  # type: ignore[misc]  # a class of the harness, which has no types
    """The decoder of ``bundle``, as it was shipped; ``max_length`` is the least of its context and this.

    Raises:
        BundleError, InputError: as :class:`TextModel`.
    """

    def __init__(
        self, bundle: str, max_length: int | str = 2048, threads: int | str | None = None, **_: Any
    ) -> None:
        super().__init__()
        self.model = TextModel(Bundle.open(bundle), threads=None if threads is None else int(threads))
        self.max_length = min(int(max_length), self.model.decoder.context_length)

    @property
    def eot_token_id(self) -> int:
        """The first token that ends a text."""
        return int(self.model.decoder.section.eos_token_ids[0])

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context stands behind: the token that begins texts, or ends them."""
        bos = self.model.tokenizer.bos_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """By which the harness tells its caches apart."""
        return str(self.model.bundle.path)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of ``string``, behind the token that begins texts unless it stands there already."""
        ids, prefix = self.model.tokenizer.encode(string, special=False), self.model.tokenizer.encode("")
        return ids if add_special_tokens is False or ids[: len(prefix)] == prefix else prefix + ids

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the bundle's own template writes it."""
        return self.model.tokenizer.render_chat(chat_history, add_generation_prompt=add_generation_prompt)

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        return [self._scored(context, continuation) for _, context, continuation in requests]

    def _scored(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        """Log-likelihood of ``continuation`` in nats, and whether each of its tokens is the likeliest."""
        if not continuation:
            return 0.0, True
        ids = np.array([(context + continuation)[-(self.max_length + 1) :]], np.int64)
        logits = self.model.decoder.logits(ids[:, :-1])[0, -len(continuation) :].astype(np.float64)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        given = ids[0, -len(logits) :]
        return float(logs[np.arange(len(given)), given].sum()), bool((logits.argmax(axis=-1) == given).all())

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows of ``max_length`` that share no scored token."""
        totals = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0], add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            totals.append(sum(self._scored(*make_disjoint_window(window))[0] for window in windows))
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the bundle writes behind each context until one of its stops."""
        replies = []
        for request in requests:
            context, asked = request.args
            until = asked.get("until") or []
            if asked.get("do_sample") and asked.get("temperature", 1.0) > 0:
                raise InputError(
                    "a task that samples is not supported", fix="give --gen_kwargs do_sample=False"
                )
            reply = self.model.generate(
                context,
                max_new_tokens=int(asked.get("max_gen_toks") or MAX_NEW_TOKENS),
                stop=[until] if isinstance(until, str) else list(until),
                chat=False,
            )
            replies.append(reply.text)
        return replies


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
