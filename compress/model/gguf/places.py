"""Where the tensors of a checkpoint go in a GGUF file: each entry is one of them, the same one of all experts
of a block, stacked as ``[experts, out, in]``, or q, k and v in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Linear, Mlp
from .architecture import GgufArchitecture

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Part:
    """A stored tensor: its ``rows [out]`` in the order that they have there (None: as they are), what is
    added to it, whether it is ``flat`` there, and what it is multiplied by (``times``).
    """

    stored: str
    rows: Rows | None = None
    added: float = 0.0
    flat: bool = False
    times: float = 1.0

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The tensor as it is there."""
        ordered = array if self.rows is None else array[self.rows]
        ordered = ordered.reshape(-1) if self.flat else ordered
        scaled = ordered if self.times == 1 else ordered * np.float32(self.times)
        return scaled + np.float32(self.added) if self.added else scaled

    def put(self, array: NDArray[Any], tensor: NDArray[Any]) -> None:
        """Write the stored ``tensor``, or those rows of it, from what is there: the inverse of :meth:`of`."""
        found = (array - np.float32(self.added)) / np.float32(self.times)
        tensor[slice(None) if self.rows is None else self.rows] = found


@dataclass(frozen=True)
class Entry:
    """The tensor ``name`` of the file; of several ``parts`` where it is ``stacked``, else of their rows one
    after the other; or of one ``expert``.
    """

    name: str
    parts: tuple[Part, ...]
    stacked: bool = False
    expert: int | None = None

    def of(self, arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
        """That of the arrays of the parts, each as it is there."""
        found = list(arrays)
        return np.stack(found) if self.stacked else found[0] if len(found) == 1 else np.concatenate(found)


def entries(anatomy: Anatomy, shapes: Shapes, known: GgufArchitecture) -> list[Entry]:
    """Each tensor of the file of a ``known`` family, in the order of the forward pass.

    Raises:
        InputError: llama.cpp has no place for one.
    """
    name_of = known.names(len(anatomy.blocks), anatomy.base)
    tables = [anatomy.embedding, anatomy.token_type_embedding, None if anatomy.tied else anatomy.head]
    found = [Entry(name_of(table), (Part(table),)) for table in tables if table is not None]
    found += [*_positions(anatomy, name_of), *_of_labels(anatomy)]
    found += [Entry(name_of(table), (Part(table),)) for table in anatomy.position_biases]
    around = (anatomy.embedding_norm, anatomy.encoder_norm, anatomy.final_norm)
    norms = [norm for norm in around if norm is not None]
    for block in anatomy.blocks:
        norms += block.norms()
        orders = _orders(block.attention, known)
        several = {linear.name for linear in block.expert_linears()}
        if known.joined:
            several |= {linear.name for linear in block.attention.projections}
            found.append(_joined(block, orders))
        for linear in block.linears():
            if linear.name not in several:
                found.append(Entry(name_of(linear.name), (Part(linear.name, orders.get(linear.name)),)))
        found += _of_experts(block)
    times = (
        {anatomy.final_norm: anatomy.logit_form.scale} if known.folds_logits and anatomy.logit_form else {}
    )
    for norm in norms:
        part = Part(norm.name, added=norm.offset, times=times.get(norm, 1.0))
        found.append(Entry(name_of(norm.name), (part,)))
    single = (_single(block) for block in anatomy.blocks)
    return [*_with_biases(found, shapes), *(entry for block in single for entry in block)]


def one_by_one(entries: Iterable[Entry]) -> list[Entry]:
    """``entries`` with a tensor for each expert, as llama.cpp had them at first, in the place of stacks."""
    found: list[Entry] = []
    for entry in entries:
        if not entry.stacked:
            found.append(entry)
            continue
        name, kind = entry.name.replace("_exps.", ".").rsplit(".", 1)
        parts = enumerate(entry.parts)
        found += (Entry(f"{name}.{index}.{kind}", (part,), expert=index) for index, part in parts)
    return found


def _positions(anatomy: Anatomy, name_of: Callable[[str], str]) -> Iterator[Entry]:
    """The table of positions from that of the first token on."""
    table, first = anatomy.position_embedding, anatomy.position_offset
    if table is not None:
        rows = np.arange(first, first + anatomy.max_positions) if first else None
        yield Entry(name_of(table), (Part(table, rows),))


def _of_labels(anatomy: Anatomy) -> Iterator[Entry]:
    from gguf import MODEL_TENSOR as TENSOR
    from gguf import TENSOR_NAMES

    labels = anatomy.classifier
    if labels is not None and labels.dense is not None:
        yield Entry(TENSOR_NAMES[TENSOR.CLS], (Part(labels.dense),))
        yield Entry(TENSOR_NAMES[TENSOR.CLS_OUT], (Part(labels.out),))


def _joined(block: BlockAnatomy, orders: Mapping[str, Rows]) -> Entry:
    """q, k and v."""
    from gguf import MODEL_TENSOR as TENSOR

    parts = (Part(linear.name, orders.get(linear.name)) for linear in block.attention.projections)
    return Entry(_name(TENSOR.ATTN_QKV, block), tuple(parts))


def _with_biases(modules: Iterable[Entry], shapes: Shapes) -> Iterator[Entry]:
    """The weight and, where it is stored, the bias of each module."""
    for module in modules:
        for kind in ("weight", "bias"):
            if f"{module.parts[0].stored}.{kind}" in shapes:
                parts = (
                    replace(part, stored=f"{part.stored}.{kind}", added=part.added * (kind == "weight"))
                    for part in module.parts
                )
                yield Entry(f"{module.name}.{kind}", tuple(parts), module.stacked)


def _of_experts(block: BlockAnatomy) -> Iterator[Entry]:
    """The router, and gate, up and down of all experts."""
    from gguf import MODEL_TENSOR as TENSOR

    experts, mlps = block.experts, list(block.expert_mlps())
    if experts is None:
        return
    yield Entry(_name(TENSOR.FFN_GATE_INP, block), (Part(experts.router),))
    if experts.shared_gate is not None:
        yield Entry(_name(TENSOR.FFN_GATE_INP_SHEXP, block), (Part(experts.shared_gate, flat=True),))
    for kind, role in (
        (TENSOR.FFN_GATE_EXP, "gate"),
        (TENSOR.FFN_UP_EXP, "up"),
        (TENSOR.FFN_DOWN_EXP, "down"),
    ):
        parts = (_part(mlp, role) for mlp in mlps)
        yield Entry(_name(kind, block), tuple(parts), stacked=True)


def _part(mlp: Mlp, role: str) -> Part:
    """Gate, up or down of an expert; of one whose rows of gate and up alternate every other row."""
    if role == "down" or mlp.gate_up is None:
        linear: Linear = getattr(mlp, role)
        return Part(linear.name)
    return Part(mlp.gate_up.name, np.arange(role == "up", mlp.gate_up.out_features, 2))


def _single(block: BlockAnatomy) -> Iterator[Entry]:
    """Tensors that are of no module: sinks, and what is added to scores when experts are chosen."""
    from gguf import MODEL_TENSOR as TENSOR

    if block.attention.sinks is not None:
        yield Entry(f"{_name(TENSOR.ATTN_SINKS, block)}.weight", (Part(block.attention.sinks),))
    form = None if block.experts is None else block.experts.router_form
    if form is not None:
        yield Entry(f"{_name(TENSOR.FFN_EXP_PROBS_B, block)}.bias", (Part(form.correction),))


def _name(kind: Any, block: BlockAnatomy) -> str:
    from gguf import TENSOR_NAMES

    return str(TENSOR_NAMES[kind].format(bid=block.index))


def _orders(attention: Attention, known: GgufArchitecture) -> dict[str, Rows]:
    """By projection, the order in which llama.cpp wants its rows, where that is another."""
    if attention.latent is not None:
        return _latent_orders(attention)
    if (order := attention.row_order()) is not None:
        return {attention.projections[0].name: np.array(order)}
    rope = attention.rope
    if not known.neighbours or rope is None or rope.interleaved:
        return {}
    head = np.concatenate([_turned(rope.dim), np.arange(rope.dim, attention.head_dim)])
    starts = np.arange(0, attention.q.out_features, attention.head_dim)[:, None]
    rows = {linear.name: linear.out_features for linear in (attention.q, attention.k)}
    return {name: (starts[: count // attention.head_dim] + head).reshape(-1) for name, count in rows.items()}


def _turned(channels: int) -> Rows:
    """Channels that turn together next to each other, where they were half of them apart."""
    return np.arange(channels).reshape(2, -1).T.reshape(-1)


def _latent_orders(attention: Attention) -> dict[str, Rows]:
    """Of latent attention, whose turned channels are the last of each query and of what keys come from."""
    latent = attention.latent
    if latent is None or attention.rope is None or attention.rope.interleaved:
        return {}
    plain, rank = attention.head_dim - latent.turned, latent.kv_a.out_features - latent.turned
    head = np.concatenate([np.arange(plain), plain + _turned(latent.turned)])
    starts = np.arange(0, attention.q.out_features, attention.head_dim)[:, None]
    return {
        attention.q.name: (starts + head).reshape(-1),
        latent.kv_a.name: np.concatenate([np.arange(rank), rank + _turned(latent.turned)]),
    }
