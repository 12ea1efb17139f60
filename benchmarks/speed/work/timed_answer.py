"""``TimedAnswer``: the unit of work of an encoder–decoder: it reads a text or hears a sound, and writes an
answer of a fixed length. Ids and samples are drawn at random from a seed, as in :mod:`.timed_work`.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ....errors import InputError
from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.encoder_decoder import EncoderDecoder
from ....runtime.engine.speech_to_text import prompt_of
from ....runtime.text.tokenizer import Tokenizer
from .loaded_work import BRIEF_TOKENS, Sample, Work

_LOUDNESS = 0.1  # of a noise whose samples are from -1 to 1


@dataclass(frozen=True)
class TimedAnswer:
    """Read a text of ``prompt_tokens``, or hear as many ``seconds`` as the model does (0: it reads), and
    write ``new_tokens``, one answer at a time; ``units`` as of :class:`.timed_work.TimedGeneration`.
    """

    units: ClassVar[dict[str, str]] = {"prefill": "input", "decode": "token"}
    prompt_tokens: int = 128
    new_tokens: int = 128
    seconds: float = 0.0
    seed: int = 0

    def check(self, bundle: Bundle) -> None:
        """Raise InputError when the bundle cannot do this: it is another kind, or reads or writes less."""
        both = bundle.encoder_decoder
        most = both.context_length - len(both.prompt)
        if not 2 <= self.new_tokens <= most:
            raise InputError(
                f"an answer of {self.new_tokens} tokens cannot be timed with {bundle.path}",
                why=f"it writes up to {most}, and two are the least",
                fix="change --max-new-tokens",
            )
        if both.sound is None and not 1 <= self.prompt_tokens <= both.max_length:
            raise InputError(
                f"a text of {self.prompt_tokens} tokens does not fit {bundle.path}",
                why=f"it reads up to {both.max_length}",
                fix="lower --prompt-tokens",
            )
        seconds = 0.0 if both.sound is None else both.sound.samples / both.sound.rate
        if seconds != self.seconds:
            raise InputError("a model that hears and one that reads, or hears less, do not do the same work")

    def open(self, bundle: Bundle, *, threads: int, provider: str, profile: Path | None = None) -> Work:
        """Load the bundle, ready to work."""
        tokenizer = Tokenizer.open(bundle.path)
        model = EncoderDecoder.open(bundle, threads, provider=provider, profile=profile)
        given = self._given(bundle)
        if bundle.encoder_decoder.sound is None:
            return AnswerWork(model, tokenizer, self.new_tokens, lambda: model.prefill([given[0].tolist()]))
        prompt = prompt_of(bundle.encoder_decoder)
        sounds = given.astype(np.float32)
        return AnswerWork(
            model, tokenizer, self.new_tokens, lambda: model.listen(sounds, prompt), 1 + len(prompt)
        )

    def _given(self, bundle: Bundle) -> npt.NDArray[Any]:
        """Ids ``[1, tokens]`` of the text, or samples ``[1, samples]`` of the sound."""
        both, random = bundle.encoder_decoder, np.random.default_rng(self.seed)
        if both.sound is None:
            return random.integers(0, both.vocab_size, size=(1, self.prompt_tokens), dtype=np.int64)
        return (random.standard_normal((1, both.sound.samples)) * _LOUDNESS).clip(-1, 1).astype(np.float32)

    def describe(self, bundle: Bundle) -> dict[str, Any]:
        """JSON for the record."""
        reads = {"seconds": self.seconds} if self.seconds else {"prompt_tokens": self.prompt_tokens}
        return {
            "kind": "answer",
            "scenario": "single",
            "batch": 1,
            **reads,
            "new_tokens": self.new_tokens,
            "sampling": "greedy",
            "inputs_sha256": hashlib.sha256(self._given(bundle).tobytes()).hexdigest(),
            "includes": {"tokenize": False, "sample": True, "load": False},
        }


class AnswerWork:
    """An encoder–decoder with what it reads, which ``begin`` gives it; see :class:`.loaded_work.Work`.

    ``begun`` are the runs of the decoder until the first token is chosen.
    """

    def __init__(
        self,
        model: EncoderDecoder,
        tokenizer: Tokenizer,
        new_tokens: int,
        begin: Callable[[], npt.NDArray[np.float32]],
        begun: int = 1,
    ) -> None:
        self.session, self.tokenizer = model.session, tokenizer
        self._model, self._new_tokens, self._begin, self._begun = model, new_tokens, begin, begun
        self.phases = {"prefill": "prefill", "decode": "tokens"}

    @property
    def graph_runs(self) -> tuple[int, int]:
        """See :class:`.loaded_work.Work`: the encoder's run is the first."""
        return 1 + self._begun, 1 + self._begun + self._new_tokens - 1

    @property
    def sessions(self) -> list[tuple[Any, int]]:
        """See :class:`.loaded_work.Work`."""
        return [(self._model.encoder, 1), (self.session, self.graph_runs[1] - 1)]

    def brief(self) -> None:
        """What is read, and a few tokens of the answer."""
        self._answer(min(self._new_tokens, BRIEF_TOKENS))

    def repeat(self, phase: str) -> int:
        """``prefill``: reading until the first token; ``decode``: what is written after it."""
        if phase == "prefill" or not self._model.lengths:
            self._begin()
        if phase == "prefill":
            return 1
        self._model.rewind()
        token = self._model.section.start_token_id
        for _ in range(self._new_tokens - 1):
            token = int(self._model.step([token])[0].argmax())
        return self._new_tokens - 1

    def __call__(self) -> Sample:
        """Nanoseconds as of :class:`.loaded_work.GenerationWork`."""
        return self._answer(self._new_tokens)

    def _answer(self, new_tokens: int) -> Sample:
        clock, tokens = time.perf_counter_ns, list[int]()
        start = clock()
        logits = self._begin()
        prefilled = clock()
        token = int(logits[0].argmax())
        last = first = clock()
        for _ in range(new_tokens - 1):
            token = int(self._model.step([token])[0].argmax())
            now = clock()
            tokens.append(now - last)
            last = now
        return {"prefill": [prefilled - start], "first": [first - start], "tokens": tokens}
