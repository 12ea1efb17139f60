"""Losses of encoder–decoders, whose decoder is given what it is to write, token by token.

Kim, Rush 2016, "Sequence-Level Knowledge Distillation", arXiv 1606.07947: an encoder–decoder learns to write
what its teacher writes. The teacher answers each source text once, by beam search, and its answer takes the
place of whatever the text's own target was: the mode stands for the whole distribution over answers, which is
too large to compare. Or next-token distributions are compared on the targets of the text, as of decoders.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...measure.reading import LAST, States
from ...model.generation_tokens import start_token
from ...text.micro_batches import MicroBatch
from .logit_terms import LogitDivergence
from .term import Answers, Term, padded


class SequenceCrossEntropy(Term):
    """Minus the log-probability of the teacher's answers, whose tokens so far the decoder is given: nats a
    token of the answers, so that those of a micro-batch together count as its source tokens.

    ``answer_tokens`` are written at most; ``beams`` answers are followed at once, and 1 is greedy. The rest
    is as the teacher's ``generation_config.json`` has it, but for chance. The decoder computes in float32.
    """

    name, by_token, writes = "sequence", False, True

    def __init__(self, beams: int, answer_tokens: int) -> None:
        self.beams, self.answer_tokens = beams, answer_tokens

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``labels [rows, answer]`` int32: the ids that are written after the start, the end among them, and
        −1 after that.
        """
        return {"labels": written(model, *sources_of(states, batch), self.beams, self.answer_tokens)}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        """``[rows]``."""
        labels = answers["labels"].long()
        logits = answer_logits(model, *sources_of(states, batch), labels)
        lost = cross_entropy(logits.transpose(1, 2).float(), labels, ignore_index=-1, reduction="none")
        return lost.sum(1) * (batch.tokens / int((labels >= 0).sum()))


class AnswerDivergence(LogitDivergence):
    """:class:`LogitDivergence` of what the decoders find of the targets of a micro-batch: nats a token of
    these, so that those of a micro-batch together count as its source tokens.
    """

    by_token = False

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        """``[written]``, of the real tokens of the targets."""
        found = super().losses(model, states, answers, batch)
        return found * (batch.tokens / len(found))

    def _found(self, model: nn.Module, states: States, batch: MicroBatch) -> Tensor:
        written, rows = batch.written(), batch.attention_mask.any(1)
        device = states[LAST].device
        real = written.attention_mask[rows].bool().to(device)
        labels = written.input_ids[rows].to(device).masked_fill(~real, -1)
        logits = answer_logits(model, *sources_of(states, batch), labels)[real].float()
        logits = logits if self.vocabulary is None else logits[..., : self.vocabulary]
        return torch.log_softmax(logits / self.temperature, -1)


def answer_logits(model: Any, sources: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """``[rows, answer, vocab]``: for each place of ``labels [rows, answer]`` what the decoder of ``model``
    finds after those before it, given the encoder's states ``sources [rows, length, hidden]``.
    """
    starts = labels.new_full((len(labels), 1), start_token(model))
    before = torch.cat([starts, labels[:, :-1].clamp_min(0)], 1)
    found: Tensor = model(
        encoder_outputs=(sources,), attention_mask=mask, decoder_input_ids=before, use_cache=False
    ).logits
    return found


def written(model: Any, sources: Tensor, mask: Tensor, beams: int, tokens: int) -> Tensor:
    """``[rows, answer]`` int32: what ``model`` answers to ``sources``, −1 after the end."""
    from transformers.modeling_outputs import BaseModelOutput

    start_token(model)
    settings = deepcopy(model.generation_config)
    settings.update(
        num_beams=beams,
        max_new_tokens=tokens,
        max_length=None,
        do_sample=False,
        num_return_sequences=1,
        return_dict_in_generate=False,
    )
    ids: Tensor = model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=sources),
        attention_mask=mask,
        generation_config=settings,
    )[:, 1:]
    return until_end(ids, settings.eos_token_id)


def until_end(ids: Tensor, end: int | list[int] | None) -> Tensor:
    """``ids [rows, answer]`` int32, −1 behind the first ``end`` of each row."""
    known = [] if end is None else end if isinstance(end, list) else [end]
    ends = torch.isin(ids, torch.tensor(known, device=ids.device))
    after = ends.cumsum(1) - ends.long() > 0
    return ids.masked_fill(after, -1).to(torch.int32)


def sources_of(states: States, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """The encoder's states ``[rows, length, hidden]`` float32 and their mask, of rows that have a token."""
    mask = batch.attention_mask[batch.attention_mask.any(1)].to(states[LAST].device)
    return padded(states, mask), mask
