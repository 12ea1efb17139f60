"""The loss ``sequence`` of models that hear: the decoder learns to write what the teacher writes of a sound.

As :mod:`.sequence_terms`, of sounds in the place of source texts; Gandhi, von Platen, Rush 2023,
"Distil-Whisper: Robust Knowledge Distillation via Large-Scale Pseudo Labelling", arXiv 2311.00430,
learn from such answers.
What stands in front of an answer is given: a language that the settings leave open is the one that the
teacher hears, and is learned, since the student will be asked for it too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...measure.reading import States
from ...model.generation_tokens import start_token
from ...model.hearing.speech_prompt import SpeechPrompt
from ...text.micro_batches import MicroBatch
from .sequence_terms import SequenceCrossEntropy, sources_of, until_end
from .term import Answers


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
