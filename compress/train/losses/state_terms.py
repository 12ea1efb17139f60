"""Losses on states: the last ones, those between the blocks, and the embedding that an encoder is used for.

States between the blocks as in FitNets (Romero et al. 2014, arXiv 1412.6550) and TinyBERT (Jiao et al. 2019,
arXiv 1909.10351): where the student is narrower, a projection that is thrown away afterwards learns to lift
its states to the teacher's width.

What attention does, compared: relations between tokens, and the attention maps themselves.

MiniLM's way to compare models of any width and number of heads (Wang et al. 2020, MiniLMv2, arXiv
2012.15828): the states of one attention are cut into relation heads; in each, the scaled products of every
two tokens of a text become, by softmax, a distribution for each token. The loss is the KL of the student's
from the teacher's, averaged over heads and over queries, keys and values. Positions that are rotated into
queries and keys come later in the model and have no part in it.

Attention maps (MiniLM, Wang et al. 2020, arXiv 2002.10957): the KL of the student's attention distribution
from the teacher's, a token and head at a time, in the last attention of both models. Where the two have
different numbers of heads, their means over heads are compared.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...measure.reading import LAST, MAPS, States
from ...model.anatomy import Anatomy, module_name
from ...model.block_anatomy import Attention
from ...model.pooling import Pooling
from ...text.micro_batches import MicroBatch
from .logit_terms import Answers, Term, forward_kl, padded

_KINDS = ("q", "k", "v")
# Below this a probability is rounding: neither model is asked to be surer.
_SMALLEST = 1e-6


def relative_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``‖student − teacher‖² / ‖teacher‖²`` of each row ``[tokens, width]``."""
    teacher = teacher.to(torch.float32)
    squared = (student.to(torch.float32) - teacher).square().sum(-1)
    return squared / teacher.square().sum(-1).clamp_min(1e-6)


class StateDistance(Term):
    """The relative squared distance of the tokens' last hidden states."""

    name = "states"

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``rows [tokens, hidden]`` float32."""
        return {"rows": states[LAST].to(torch.float32)}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        return relative_distance(states[LAST], answers["rows"])


class HiddenDistance(Term):
    """The mean relative squared distance of states between blocks.

    ``pairs`` are paths of a student's and of a teacher's block; ``widths`` are those of their states, student
    first.
    """

    name = "hidden"

    def __init__(
        self, pairs: Mapping[str, str], widths: tuple[int, int], seed: int, device: torch.device
    ) -> None:
        self.student_taps = {f"hidden.{index}": mine for index, mine in enumerate(pairs)}
        self.teacher_taps = {f"hidden.{index}": theirs for index, theirs in enumerate(pairs.values())}
        self.projections: dict[str, nn.Parameter] = {}
        narrow, wide = widths
        if narrow != wide:
            generator = torch.Generator().manual_seed(seed)
            for name in self.student_taps:
                start = torch.randn(wide, narrow, generator=generator) * narrow**-0.5
                self.projections[name] = nn.Parameter(start.to(device))

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``hidden.N [tokens, hidden]`` float32 after each of the teacher's blocks."""
        return {name: states[name].to(torch.float32) for name in self.teacher_taps}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        distances = []
        for name in self.student_taps:
            mine = states[name].to(torch.float32)
            if name in self.projections:
                mine = mine @ self.projections[name].T
            distances.append(relative_distance(mine, answers[name]))
        return torch.stack(distances).mean(0)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.projections.values())


class EmbeddingDistance(Term):
    """How far each row's embedding is from the teacher's: 1 − cosine, or the relative squared distance.

    Every row of a micro-batch counts alike, and all of them together as the micro-batch's tokens.
    """

    by_token = False

    def __init__(self, pooling: Pooling, *, cosine: bool) -> None:
        self.name = "cosine" if cosine else "embedding"
        self.pooling, self.cosine = pooling, cosine

    def _embeddings(self, states: States, batch: MicroBatch) -> Tensor:
        mask = batch.attention_mask.to(states[LAST].device)
        return self.pooling.apply(padded(states, mask), mask)

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``embeddings [rows, hidden]`` float32."""
        return {"embeddings": self._embeddings(states, batch)}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        mine, theirs = self._embeddings(states, batch), answers["embeddings"]
        if self.cosine:
            distance = 1 - torch.nn.functional.cosine_similarity(mine, theirs, dim=-1)
        else:
            distance = relative_distance(mine, theirs)
        return distance * (batch.tokens / len(distance))


def log_relations(rows: Tensor, heads: int) -> Tensor:
    """``[heads, tokens, tokens]`` log-probabilities from the states ``rows [tokens, width]`` of one text."""
    parts = rows.to(torch.float32).view(len(rows), heads, -1).transpose(0, 1)
    return torch.log_softmax(parts @ parts.transpose(1, 2) * parts.shape[-1] ** -0.5, -1)


def relation_loss(student: Tensor, teacher: Tensor, heads: int) -> Tensor:
    """``[tokens]``: KL of the relations of one text, mean over heads."""
    return forward_kl(log_relations(teacher, heads), log_relations(student, heads)).mean(0)


class Relations(Term):
    """The relations in one block of each model: by ``block`` of the anatomies, −1 the last."""

    name, by_token = "relations", False

    def __init__(self, student: Anatomy, teacher: Anatomy, heads: int, block: int = -1) -> None:
        self.heads = heads
        self.mine, self.theirs = (anatomy.blocks[block].attention for anatomy in (student, teacher))
        self.student_taps, self.teacher_taps = (
            _projections(student, self.mine),
            _projections(teacher, self.theirs),
        )

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``q``, ``k`` and ``v`` ``[tokens, width]`` float32."""
        return _split(self.theirs, states)

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        lengths = batch.attention_mask.sum(1).tolist()
        mine, total = _split(self.mine, states), []
        for kind in _KINDS:
            pairs = zip(torch.split(mine[kind], lengths), torch.split(answers[kind], lengths), strict=True)
            total.append(torch.cat([relation_loss(one, other, self.heads) for one, other in pairs]))
        return torch.stack(total).mean(0)


def _projections(anatomy: Anatomy, attention: Attention) -> dict[str, str]:
    return {
        f"relations.{index}": module_name(anatomy, linear.name)
        for index, linear in enumerate(attention.projections)
    }


def _split(attention: Attention, states: States) -> dict[str, Tensor]:
    """q, k and v, also of one matrix that holds all three."""
    rows = [states[f"relations.{index}"] for index in range(len(attention.projections))]
    if attention.qkv is not None:
        order = attention.row_order()
        joined = rows[0] if order is None else rows[0][:, torch.tensor(order, device=rows[0].device)]
        sizes = [linear.out_features for linear in (attention.q, attention.k, attention.v)]
        rows = list(torch.split(joined, sizes, -1))
    return {kind: part.to(torch.float32) for kind, part in zip(_KINDS, rows, strict=True)}


class AttentionMaps(Term):
    """The maps of one block in each model: by ``block`` of the anatomies, −1 the last."""

    name = "attention"

    def __init__(self, student: Anatomy, teacher: Anatomy, block: int = -1) -> None:
        mine, theirs = (anatomy.blocks[block].attention for anatomy in (student, teacher))
        self.student_taps = {f"{MAPS}0": module_name(student, mine.module)}
        self.teacher_taps = {f"{MAPS}0": module_name(teacher, theirs.module)}

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``maps [tokens, heads, keys]`` float32: each token's attention over the places of its row."""
        return {"maps": states[f"{MAPS}0"].to(torch.float32)}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        return map_divergence(states[f"{MAPS}0"].to(torch.float32), answers["maps"])


def map_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """``[tokens]``: KL of maps ``[tokens, heads, keys]``, the mean over heads."""
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    logarithms = (maps.clamp_min(_SMALLEST).log() for maps in (teacher, student))
    return forward_kl(*logarithms).mean(-1)
