"""The text that a decoder writes, beside its original's: how much of it repeats, and whether it is lost.

Both reply to the same prompts, greedily, and the original says how likely the replies are to it. ``validate``
records the verdict in ``compare["text"]``.

Every metric of tokens on what decoders write of something that their encoders read, sounds or texts.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.engine.batch_decoder import REPLIES_AT_ONCE
from ...runtime.text.greedy_loops import NEW_TOKENS, PROMPTS, prompt_ids
from ...terminal.progress import Progress, ProgressTask, Silent
from ..records.conditions import clip
from ..records.record import SampleAnswer
from ..records.subjects import OpenModel, TokenModel
from .accuracy import score_windows, text_bits
from .held_out_text import is_cut
from .metrics import METRICS, metrics_of
from .scores import Scores, log_softmax
from .token_damage import Ids, TokenDamage

Replies = Sequence[Sequence[int]]
Numbers = NDArray[np.float64]
Verdict = Literal["keeps", "loops", "strays"]
# So many more replies end in a loop than of the original, or so much less likely are they to the original
# than its own are, and the interval of the difference leaves out zero: then the text is lost.
MORE_LOOPS, MORE_NATS = 0.2, 2.0
# So many of the replies are kept as they are, to be read, and so many characters of each.
SHOWN, LONGEST_REPLY = 3, 500


def score_greedy(
    subject: OpenModel, original: OpenModel, *, progress: Progress | None = None
) -> tuple[dict[str, Scores], list[SampleAnswer]]:
    """Every metric of greedy text, and some of it; ``subject`` may be ``original`` itself. Empty where the
    prompts with their replies do not fit one of the models.
    """
    same, compared = subject is original, not is_cut(subject, original)
    own = other = None
    with (progress or Silent()).task("writing replies", len(PROMPTS) * (1 + compared) * (2 - same)) as task:
        theirs = _replies(original, task)
        mine = theirs if same or not theirs else _replies(subject, task)
        if not mine:
            return {}, []
        if compared:
            prompts = prompt_ids(original.tokenizer, PROMPTS)
            own = _nats(original, prompts, theirs, task)
            other = own if same else _nats(original, prompts, mine, task)
    read = [
        [model.tokenizer.decode(ids) for ids in replies[:SHOWN]]
        for model, replies in ((original, theirs), (subject, mine))
    ]
    return reply_scores(mine, theirs, other, own), sample_replies(PROMPTS, *read)


def reply_scores(
    mine: Replies, theirs: Replies, nats: Numbers | None, own: Numbers | None
) -> dict[str, Scores]:
    """Every metric of greedy text of both models' replies, whose mean negative log-likelihoods ``[replies]``
    in the original are ``nats`` and ``own``; None where it reads other tokens.
    """
    scores = {}
    for name, metric in metrics_of("greedy").items():
        ours, reference = metric.each(mine, nats), metric.each(theirs, own)
        if ours is not None:
            scores[name] = Scores(metric, ours[:, None], reference[:, None])
    return scores


def answer_scores(mine: Sequence[str], theirs: Sequence[str]) -> dict[str, Scores]:
    """Every metric that compares both models' replies to the same inputs, as they are read."""
    scores = {}
    for name, metric in metrics_of("answers").items():
        rows = metric.each(mine, theirs)[:, None]
        scores[name] = Scores(metric, rows, np.ones_like(rows))
    return scores


def sample_replies(prompts: Sequence[str], theirs: Sequence[str], mine: Sequence[str]) -> list[SampleAnswer]:
    """Some of both models' replies, to be read."""
    return [
        SampleAnswer(
            prompt=clip(prompt, LONGEST_REPLY),
            original=clip(first, LONGEST_REPLY),
            compressed=clip(second, LONGEST_REPLY),
        )
        for prompt, first, second in zip(prompts[:SHOWN], theirs[:SHOWN], mine[:SHOWN], strict=True)
    ]


class Replying:
    """How much of some replies, a few of which are written side by side, is still to come."""

    def __init__(self, task: ProgressTask, replies: int, new_tokens: int = NEW_TOKENS) -> None:
        self.task, self.left, self.new_tokens = task, float(replies), new_tokens

    def step(self) -> None:
        """Those side by side have a token more."""
        self._advance(min(REPLIES_AT_ONCE / self.new_tokens, self.left))

    def end(self) -> None:
        """All have been written."""
        self._advance(self.left)

    def _advance(self, part: float) -> None:
        self.left -= part
        self.task.advance(part)


def _replies(model: OpenModel, task: ProgressTask) -> list[list[int]]:
    """To all prompts; empty where they do not fit."""
    written = Replying(task, len(PROMPTS))
    replies = model.greedy(PROMPTS, NEW_TOKENS, written.step)
    written.end()
    return replies


def _nats(model: OpenModel, prompts: Sequence[list[int]], replies: Replies, task: ProgressTask) -> Numbers:
    """Of each reply to a prompt the mean negative log-likelihood of its tokens."""
    found = []
    for prompt, reply in zip(prompts, replies, strict=True):
        ids = np.array([*prompt, *reply], np.int64)
        found.append(reply_nats(model.logits(ids[None])[0, len(prompt) - 1 : -1], reply))
        task.advance(1)
    return np.array(found)


def reply_nats(logits: NDArray[np.float32], reply: Sequence[int]) -> float:
    """The mean negative log-likelihood of the tokens of ``reply`` by the logits ``[tokens, vocab]`` that
    predict them."""
    return -float(log_softmax(logits)[np.arange(len(reply)), list(reply)].mean())


def verdict(scores: dict[str, Scores], seed: int = 0) -> dict[str, Any] | None:
    """Whether the subject ``keeps`` its text, ``loops``, or ``strays`` into what the original would not say;
    None where no replies were written. ``loops`` and ``original`` are fractions of replies that end in one.
    """
    if "loops" not in scores:
        return None
    said: Verdict = "keeps"
    if "reply_nats" in scores and _above(scores["reply_nats"], MORE_NATS, seed):
        said = "strays"
    elif _above(scores["loops"], MORE_LOOPS, seed):
        said = "loops"
    loops = scores["loops"]
    return {
        "verdict": said,
        "loops": float(np.mean(loops.subject)),
        "original": float(np.mean(loops.original)),
        "prompts": len(loops.subject),
    }


def _above(scores: Scores, limit: float, seed: int) -> bool:
    delta = scores.delta(seed)
    return bool(delta["value"] > limit and (delta["ci95"] is None or delta["ci95"][0] > 0))


class Written(NamedTuple):
    """Both models with what they have read, one object where they are one, and the tokens ``[n + 1]`` that
    are written of it, of which the first is given."""

    subject: TokenModel
    original: TokenModel
    tokens: Ids


class Across(NamedTuple):
    """As :class:`Written`, of models that split the text into other tokens: each with its own."""

    subject: TokenModel
    tokens: Ids
    original: TokenModel
    original_tokens: Ids


def score_written(
    written: Iterable[Written],
    count: int,
    *,
    damage: list[TokenDamage] | None = None,
    progress: Progress | None = None,
) -> dict[str, Scores]:
    """Every token metric over so many ``written``, a row each; otherwise as :func:`.accuracy.score_windows`,
    and raises as that does."""
    parts: list[dict[str, Scores]] = []
    with (progress or Silent()).task("validating", count) as task:
        for number, one in enumerate(written, 1):
            window = one.tokens[None]
            parts.append(score_windows(one.subject, one.original, window, damage=damage, first=number))
            task.advance(1)
    return {
        name: Scores(
            first.metric,
            np.concatenate([part[name].subject for part in parts]),
            np.concatenate([part[name].original for part in parts]),
        )
        for name, first in parts[0].items()
    }


def score_written_across(
    written: Iterable[Across], count: int, *, progress: Progress | None = None
) -> dict[str, Scores]:
    """Bits per byte of so many ``written``, each model in its own tokens."""
    mine, theirs = [], []
    with (progress or Silent()).task("validating", count) as task:
        for number, one in enumerate(written, 1):
            mine.append(text_bits(one.subject, one.tokens, "the compressed model", number))
            theirs.append(text_bits(one.original, one.original_tokens, "the original", number))
            task.advance(1)
    metric = METRICS["bits_per_byte"]
    return {"bits_per_byte": Scores(metric, np.array(mine, np.float64), np.array(theirs, np.float64))}
