"""Losses of encoder–decoders, whose decoder is given what it is to write, token by token.

Kim, Rush 2016, "Sequence-Level Knowledge Distillation", arXiv 1606.07947: an encoder–decoder learns to write
what its teacher writes. The teacher answers each source text once, by beam search, and its answer takes the
place of whatever the text's own target was: the mode stands for the whole distribution over answers, which is
too large to compare. Or next-token distributions are compared on the targets of the text, as of decoders.

The loss ``sequence`` of models that hear: the decoder learns to write what the teacher writes of a sound.

As :mod:`.sequence_terms`, of sounds in the place of source texts; Gandhi, von Platen, Rush 2023,
"Distil-Whisper: Robust Knowledge Distillation via Large-Scale Pseudo Labelling", arXiv 2311.00430,
learn from such answers.
What stands in front of an answer is given: a language that the settings leave open is the one that the
teacher hears, and is learned, since the student will be asked for it too.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...measure.reading import LAST, States
from ...model.generation_tokens import start_token
from ...model.hearing.speech_prompt import SpeechPrompt
from ...text.micro_batches import MicroBatch
from .logit_terms import Answers, LogitDivergence, Term, padded


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


class SpokenSequence(SequenceCrossEntropy):
    """Minus the log-probability of the teacher's answers behind their ``prompt``, at most ``longest`` tokens
    together: nats a token of the answers, so that those of a micro-batch together count as its sounds do.
    """

    def __init__(self, beams: int, answer_tokens: int, prompt: SpeechPrompt, longest: int) -> None:
        super().__init__(beams, answer_tokens)
        self.prompt, self.longest = prompt, longest
        self.said = repr(prompt)  # what is asked depends on it

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``given [rows, tokens]`` int32: what the decoder reads, the start in front; ``labels [rows,
        tokens]`` int32: what it is to find there, and −1 where nothing is learned.
        """
        sources, _ = sources_of(states, batch)
        front, chosen = prompted(model, sources, self.prompt)
        room = min(self.answer_tokens, self.longest - front.shape[1])
        answer = transcribed(model, sources, front, self.prompt, beams=self.beams, tokens=room)
        given = torch.cat([front, answer[:, :-1].clamp_min(0)], 1)
        return {"given": given.to(torch.int32), "labels": torch.cat([chosen, answer], 1).to(torch.int32)}

    def losses(self, model: Any, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        """``[rows]``."""
        labels, (sources, mask) = answers["labels"].long(), sources_of(states, batch)
        given = answers["given"].long()
        logits = model(
            encoder_outputs=(sources,), attention_mask=mask, decoder_input_ids=given, use_cache=False
        ).logits
        lost = cross_entropy(logits.transpose(1, 2).float(), labels, ignore_index=-1, reduction="none")
        return lost.sum(1) * (batch.tokens / int((labels >= 0).sum()))


def prompted(model: Any, sources: Tensor, prompt: SpeechPrompt) -> tuple[Tensor, Tensor]:
    """What is written ahead of answers to ``sources [rows, length, hidden]``: the start, and of each place
    the likeliest token, ``[rows, 1 + places]``; and those that were chosen, ``[rows, places]``, −1 where
    there was one token alone.
    """
    front = torch.full((len(sources), 1), start_token(model), device=sources.device)
    chosen = front[:, :0]
    for place in prompt.places:
        tokens = torch.tensor(place, device=sources.device)
        found = model(encoder_outputs=(sources,), decoder_input_ids=front, use_cache=False).logits[:, -1]
        best = tokens[found[:, tokens].argmax(-1), None]
        front = torch.cat([front, best], 1)
        chosen = torch.cat([chosen, best if len(place) > 1 else torch.full_like(best, -1)], 1)
    return front, chosen


def transcribed(
    model: Any, sources: Tensor, front: Tensor, prompt: SpeechPrompt, *, beams: int, tokens: int
) -> Tensor:
    """``[rows, answer]`` int32: what ``model`` writes of ``sources [rows, length, hidden]`` behind ``front
    [rows, places]``, ``tokens`` at most, −1 after the end.

    Its own ``generate`` looks for times and falls back to other temperatures; this is that of all models.
    """
    from transformers import GenerationConfig, GenerationMixin
    from transformers.modeling_outputs import BaseModelOutput

    stated = model.generation_config
    settings = GenerationConfig(
        num_beams=beams,
        max_new_tokens=tokens,
        do_sample=False,
        decoder_start_token_id=stated.decoder_start_token_id,
        eos_token_id=stated.eos_token_id,
        pad_token_id=stated.pad_token_id,
        suppress_tokens=list(prompt.never) or None,
        begin_suppress_tokens=list(prompt.never_first) or None,
    )
    ids: Tensor = GenerationMixin.generate(
        model,
        encoder_outputs=BaseModelOutput(last_hidden_state=sources),
        decoder_input_ids=front,
        generation_config=settings,
    )
    return until_end(ids[:, front.shape[1] :], stated.eos_token_id)
