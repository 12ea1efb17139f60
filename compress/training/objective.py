"""What a student is compared with its teacher by, token by token.

A decoder by the forward KL divergence of the next-token distribution, teacher ‖ student, over the ``top_k``
likeliest tokens and one more outcome that stands for all the others (Hinton, Vinyals, Dean 2015, arXiv
1503.02531). Merging outcomes never raises a KL, so it is a lower bound of the whole one. An encoder by the
squared distance of the tokens' last hidden states, relative to the teacher's.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ..anatomy import Anatomy
from .pieces import Piece

Answers = dict[str, Tensor]

_AT_ONCE = 128  # tokens whose logits are held at once: a row is as long as the vocabulary
_SMALLEST = 1e-7  # the least probability of all tokens outside the top


class Objective(Protocol):
    """A loss a token, from a model's last hidden states ``rows [tokens, hidden]``."""

    def answers(self, model: nn.Module, rows: Tensor) -> Answers:
        """What is kept of the teacher: tensors with one row a token."""

    def losses(self, model: nn.Module, rows: Tensor, answers: Answers) -> Tensor:
        """``[tokens]``: how far the student is from the teacher's ``answers``."""


def objective_for(anatomy: Anatomy, top_k: int) -> Objective:
    """The objective for a model of this kind."""
    if anatomy.kind == "encoder":
        return StateDistance()
    return LogitDivergence(min(top_k, anatomy.vocab_size - 1), anatomy.logit_softcap)


class LogitDivergence:
    """KL(teacher ‖ student) in nats."""

    def __init__(self, top_k: int, softcap: float | None) -> None:
        self.top_k, self.softcap = top_k, softcap

    def _log_probabilities(self, model: nn.Module, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            logits = model.get_output_embeddings()(rows.to(torch.float32))  # type: ignore[operator]
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return torch.log_softmax(logits, -1)

    def answers(self, model: nn.Module, rows: Tensor) -> Answers:
        """``ids [tokens, top_k]`` int32 and their ``log_probabilities``, float32."""
        top = self._log_probabilities(model, rows).topk(self.top_k, -1)
        return {"ids": top.indices.to(torch.int32), "log_probabilities": top.values}

    def losses(self, model: nn.Module, rows: Tensor, answers: Answers) -> Tensor:
        known = answers["log_probabilities"]
        chosen = self._log_probabilities(model, rows).gather(-1, answers["ids"].long())
        tail, mine = _log_rest(known), _log_rest(chosen)
        return (known.exp() * (known - chosen)).sum(-1) + tail.exp() * (tail - mine)


def _log_rest(log_probabilities: Tensor) -> Tensor:
    """The logarithm of what the given outcomes leave of 1."""
    return (1 - log_probabilities.exp().sum(-1)).clamp_min(_SMALLEST).log()


class StateDistance:
    """``‖student − teacher‖² / ‖teacher‖²`` of a token's last hidden state."""

    def answers(self, model: nn.Module, rows: Tensor) -> Answers:
        """``rows [tokens, hidden]`` float32."""
        return {"rows": rows.to(torch.float32)}

    def losses(self, model: nn.Module, rows: Tensor, answers: Answers) -> Tensor:
        teacher = answers["rows"]
        return (rows.to(torch.float32) - teacher).square().sum(-1) / teacher.square().sum(-1).clamp_min(1e-6)


def last_states(model: nn.Module, piece: Piece, device: torch.device) -> Tensor:
    """The real tokens' last hidden states ``[tokens, hidden]``, after the final norm if there is one."""
    mask = piece.attention_mask.to(device)
    whole = bool(mask.all())
    cached = {"use_cache": False} if model.get_output_embeddings() is not None else {}  # type: ignore[operator]
    output = model.base_model(  # type: ignore[operator]
        input_ids=piece.input_ids.to(device), attention_mask=None if whole else mask, **cached
    )
    states: Tensor = output.last_hidden_state
    return states.flatten(0, 1) if whole else states[mask.bool()]


def learn_from(
    objective: Objective, model: nn.Module, piece: Piece, answers: Answers, share: float, device: torch.device
) -> float:
    """Add the gradient of ``share`` times the summed loss of a piece; returns the sum.

    The logits of a few tokens exist at a time: their gradients are gathered at the last hidden states and go
    back through the model once.
    """
    rows = last_states(model, piece, device)
    entrance, total = rows.detach().requires_grad_(True), 0.0
    for start in range(0, rows.shape[0], _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        some = {name: tensor[part].to(device) for name, tensor in answers.items()}
        loss = objective.losses(model, entrance[part], some).sum()
        (loss * share).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    rows.backward(entrance.grad)  # type: ignore[no-untyped-call]
    return total


def ask(objective: Objective, teacher: nn.Module, piece: Piece, device: torch.device) -> Answers:
    """The teacher's answers to a piece."""
    with torch.no_grad():
        rows = last_states(teacher, piece, device)
        parts = [objective.answers(teacher, part) for part in torch.split(rows, _AT_ONCE)]
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def total_loss(
    objective: Objective, model: nn.Module, piece: Piece, answers: Answers, device: torch.device
) -> float:
    """The summed loss of a piece, without learning."""
    with torch.no_grad():
        rows = last_states(model, piece, device)
        parts = [
            objective.losses(
                model,
                rows[start : start + _AT_ONCE],
                {name: tensor[start : start + _AT_ONCE].to(device) for name, tensor in answers.items()},
            )
            for start in range(0, rows.shape[0], _AT_ONCE)
        ]
    return sum(float(part.sum()) for part in parts)
