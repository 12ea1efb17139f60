"""Where the tensors of a checkpoint go in a GGUF file: each entry is one of them, the same one of all experts
of a block, stacked as ``[experts, out, in]``, or q, k and v in a row.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Linear, Mlp
from .architecture import GgufArchitecture
from .entry import Entry, Part, Rows, mixer_folded, mixer_modules, mixer_single


def entries(anatomy: Anatomy, shapes: Shapes, known: GgufArchitecture) -> list[Entry]:
    """Each tensor of the file of a ``known`` family, in the order of the forward pass."""
    name_of = known.names(len(anatomy.blocks), anatomy.base)
    tables = [anatomy.embedding, anatomy.token_type_embedding, None if anatomy.tied else anatomy.head]
    found = [Entry(name_of(table), (Part(table),)) for table in tables if table is not None]
    found += [*_positions(anatomy, name_of), *_of_labels(anatomy)]
    found += [Entry(name_of(table), (Part(table),)) for table in anatomy.position_biases]
    around = (anatomy.embedding_norm, anatomy.encoder_norm, anatomy.final_norm)
    norms = [norm for norm in around if norm is not None]
    folded: dict[str, tuple[int, ...]] = {}
    single: list[Entry] = []
    for block in anatomy.blocks:
        norms += block.norms()
        found += [*_of_linears(block, known, name_of), *_of_experts(block)]
        single += _single(block)
        if not isinstance(block.mixer, Attention):
            folded |= mixer_folded(block.mixer)
            found += [Entry(name_of(name), (Part(name),)) for name in mixer_modules(block.mixer)]
            single += mixer_single(block.mixer, name_of)
    times = (
        {anatomy.final_norm: anatomy.logit_form.scale} if known.folds_logits and anatomy.logit_form else {}
    )
    for norm in norms:
        part = Part(norm.name, added=norm.offset, times=times.get(norm, 1.0))
        found.append(Entry(name_of(norm.name), (part,)))
    return [*_with_biases(found, shapes, folded), *single]


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
        if labels.norm is not None:
            yield Entry(TENSOR_NAMES[TENSOR.CLS_NORM], (Part(labels.norm.name),))


def _joined(block: BlockAnatomy, orders: Mapping[str, Rows]) -> Entry:
    """q, k and v."""
    from gguf import MODEL_TENSOR as TENSOR

    parts = (Part(linear.name, orders.get(linear.name)) for linear in block.attention.projections)
    return Entry(_name(TENSOR.ATTN_QKV, block), tuple(parts))


def _of_linears(
    block: BlockAnatomy, known: GgufArchitecture, name_of: Callable[[str], str]
) -> Iterator[Entry]:
    """Those of no expert that others stand beside."""
    orders = _orders(block.mixer, known) if isinstance(block.mixer, Attention) else {}
    several = {linear.name for linear in block.expert_linears()}
    if known.joined:
        several |= {linear.name for linear in block.attention.projections}
        yield _joined(block, orders)
    for linear in block.linears():
        if linear.name not in several:
            yield Entry(name_of(linear.name), (Part(linear.name, orders.get(linear.name)),))


def _with_biases(
    modules: Iterable[Entry], shapes: Shapes, folded: Mapping[str, tuple[int, ...]]
) -> Iterator[Entry]:
    """The weight, whose shape may be ``folded``, and, where it is stored, the bias of each module."""
    for module in modules:
        first = module.parts[0]
        shape = folded.get(first.stored, first.shape)
        parts = [replace(part, stored=f"{part.stored}.weight", shape=shape) for part in module.parts]
        if parts[0].stored in shapes:
            yield Entry(f"{module.name}.weight", tuple(parts), module.stacked)
        if f"{first.stored}.bias" in shapes:
            parts = [
                replace(part, stored=f"{part.stored}.bias", added=0.0, shape=None) for part in module.parts
            ]
            yield Entry(f"{module.name}.bias", tuple(parts), module.stacked)


def _of_experts(block: BlockAnatomy) -> Iterator[Entry]:
    """The router, and gate, up and down of all experts."""
    from gguf import MODEL_TENSOR as TENSOR

    experts, mlps = block.experts, list(block.expert_mlps())
    if experts is None:
        return
    yield Entry(_name(TENSOR.FFN_GATE_INP, block), (Part(experts.router),))
    if experts.shared_gate is not None:
        flat = (mlps[0].up.in_features,)
        yield Entry(_name(TENSOR.FFN_GATE_INP_SHEXP, block), (Part(experts.shared_gate, shape=flat),))
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

    sinks = getattr(block.mixer, "sinks", None)
    if sinks is not None:
        yield Entry(f"{_name(TENSOR.ATTN_SINKS, block)}.weight", (Part(sinks),))
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
