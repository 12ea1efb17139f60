"""``Entry``: a tensor of a GGUF file, and the checkpoint's tensors that it is made of, forth and back.

Latent attention whose keys and values come from two tensors a block, as llama.cpp's converter writes them
since April 2025, in the terms of files that have one: each head's keys are turned there, since queries go
through them.

The tensors that a checkpoint has of experts, by those of transformers' module, in which gate and up of all
experts of a block are one, and down another.

What mixes tokens in the place of attention, as llama.cpp has it: sizes by the names of its settings, the
tensors that are of no linear, and what its arithmetic of them leaves out.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention
from ..block_parts.mixer_anatomy import HeadedStateSpace, Mixer, ShortConvolution, StateSpace
from ..families._experts import ExpertNames
from . import architecture as names

Rows = NDArray[np.intp]
_STEPS = (0, 1, -1, 2, -2)
IN_TWO = "blk.0.attn_k_b.weight"
_OF_HEADS = {
    "attention.key_length_mla": "attention.key_length",
    "attention.value_length_mla": "attention.value_length",
}
_ALL = re.compile(r"(.+\.\d+)\.\w+\.experts\.(gate_up_proj|down_proj)(_bias)?")
_KINDS = {
    ShortConvolution: names.SHORT_CONVOLUTIONS,
    StateSpace: names.STATE_SPACES,
    HeadedStateSpace: names.HEADED_STATES,
}


@dataclass(frozen=True)
class Part:
    """A stored tensor: its ``rows [out]`` in the order that they have there (None: as they are), what is
    added to it, what it is multiplied by (``times``), and its ``shape`` there where that is another. A
    ``decay`` is stored as its logarithm: there it is what a state is multiplied by in each step, ``-exp`` of
    that. The last two dimensions of a ``swapped`` one are the other way round there.
    """

    stored: str
    rows: Rows | None = None
    added: float = 0.0
    times: float = 1.0
    shape: tuple[int, ...] | None = None
    decay: bool = False
    swapped: bool = False

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The tensor as it is there."""
        ordered = array if self.rows is None else array[self.rows]
        if self.swapped and self.shape is not None:
            first, last, rows = self.shape
            return ordered.reshape(first, rows, last).swapaxes(1, 2)
        ordered = ordered if self.shape is None else ordered.reshape(self.shape)
        if self.decay:
            return _decay(ordered)
        scaled = ordered if self.times == 1 else ordered * np.float32(self.times)
        return scaled + np.float32(self.added) if self.added else scaled

    def back(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """The numbers of the stored tensor, or of those rows of it, from what is there."""
        if self.decay:
            return _logarithms(array)
        array = array.swapaxes(-1, -2) if self.swapped else array
        plain = array - np.float32(self.added) if self.added else array
        return plain if self.times == 1 else plain / np.float32(self.times)


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


def _decay(logarithms: NDArray[Any]) -> NDArray[Any]:
    """As the model's own torch works it out, to the last bit."""
    return np.asarray((-torch.exp(torch.from_numpy(np.ascontiguousarray(logarithms)))).numpy())


def _logarithms(decay: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest numbers that :func:`_decay` makes these of: two steps of float32 are within what its own
    rounding moves them.
    """
    with np.errstate(all="ignore"):  # what is no decay becomes no number, which is refused
        nearest = np.log(-decay.astype(np.float64)).astype(np.float32)
    found, left = nearest.copy(), np.ones(nearest.shape, bool)
    for steps in _STEPS:
        tried = nearest
        for _ in range(abs(steps)):
            tried = np.nextafter(tried, np.float32(np.copysign(np.inf, steps)))
        exact = left & (_decay(tried) == decay)
        found[exact], left = tried[exact], left & ~exact
    return found


def plain_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """``settings`` with the sizes of heads, where the file has those of the narrow state that all share."""
    found = {name: value for name, value in settings.items() if name not in _OF_HEADS}
    stated = {name: settings[own] for own, name in _OF_HEADS.items() if own in settings}
    if stated:
        stated["attention.head_count_kv"] = settings.get("attention.head_count")
    return found | stated


def in_two(entries: Iterable[Entry], anatomy: Anatomy) -> list[Entry]:
    """``entries`` with two tensors in the place of each that keys and values come from."""
    parts = {
        f"{part.latent.kv_b.name}.weight": part for part in anatomy.attentions() if part.latent is not None
    }
    found: list[Entry] = []
    for entry in entries:
        attention = parts.get(entry.parts[0].stored)
        found += [entry] if attention is None else _two(entry, attention)
    return found


def _two(entry: Entry, attention: Attention) -> list[Entry]:
    stored, latent = entry.parts[0].stored, attention.latent
    assert latent is not None
    rank, heads, values = latent.kv_b.in_features, attention.heads, attention.value_dim
    plain = attention.head_dim - latent.turned
    rows = np.arange(heads * (plain + values)).reshape(heads, -1)
    keys = Part(stored, rows[:, :plain].reshape(-1), shape=(heads, rank, plain), swapped=True)
    read = Part(stored, rows[:, plain:].reshape(-1), shape=(heads, values, rank))
    named = (("attn_k_b", keys), ("attn_v_b", read))
    return [Entry(entry.name.replace("attn_kv_b", name), (part,)) for name, part in named]


def stored_shapes(shapes: Shapes, names: ExpertNames) -> dict[str, tuple[int, ...]]:
    """``shapes`` of a module's tensors, those of experts one by one, by the ``names`` of checkpoints."""
    return {name: shape for one, whole in shapes.items() for name, shape in _stored(one, whole, names)}


def _stored(name: str, shape: tuple[int, ...], names: ExpertNames) -> Iterator[tuple[str, tuple[int, ...]]]:
    router = re.fullmatch(rf"(.+\.\d+)\.\w+\.{re.escape(names.router.partition('.')[0])}\.(\w+)", name)
    match = _ALL.fullmatch(name)
    if match is None:
        yield f"{router[1]}.{names.module}.{names.router}.{router[2]}" if router else name, shape
        return
    block, linear, bias = match.groups()
    parts, (count, rows, *others) = names.linears[:-1], shape
    if linear == "down_proj":
        parts = names.linears[-1:]
    for index in range(count):
        for part in parts:
            stored = f"{block}.{names.module}.experts.{index}.{part}.{'bias' if bias else 'weight'}"
            yield stored, (rows // len(parts), *others)


def sizes_of(mixer: Mixer) -> dict[str, int]:
    """Its sizes, by llama.cpp's name."""
    width = mixer.convolution.width
    if isinstance(mixer, ShortConvolution):
        return {"shortconv.l_cache": width}
    found = {
        "ssm.conv_kernel": width,
        "ssm.inner_size": mixer.out_proj.in_features,
        "ssm.state_size": mixer.size,
    }
    if isinstance(mixer, StateSpace):
        return found | {"ssm.time_step_rank": mixer.rank}
    return found | {"ssm.time_step_rank": mixer.heads, "ssm.group_count": mixer.groups}


def features_of(mixer: Mixer, hidden: int) -> Iterator[str]:
    """What it has beyond llama.cpp's plainest, in a model of the width ``hidden``."""
    yield _KINDS[type(mixer)]
    convolution, short = mixer.convolution, isinstance(mixer, ShortConvolution)
    if convolution.bias == short:
        yield "convolutions with a bias" if short else "convolutions without a bias"
    if convolution.width < 2:
        yield "convolutions of one token"
    if isinstance(mixer, ShortConvolution):
        return
    if mixer.activation != "silu":
        yield f"a state space with {mixer.activation}"
    if isinstance(mixer, StateSpace):
        if mixer.step_norm is not None:
            yield names.STEP_NORMS
        if mixer.out_proj.in_features != 2 * hidden:
            yield "a state space that is not twice as wide as the model"
    elif (mixer.least, mixer.most) != (0, inf):
        yield "a step that is clamped"


def mixer_folded(mixer: Mixer) -> dict[str, tuple[int, ...]]:
    """By module, the shape of its weight there, where that is another: convolutions without their one input,
    the norm of a state space in heads by its groups.
    """
    convolution = mixer.convolution
    found: dict[str, tuple[int, ...]] = {convolution.module: (convolution.channels, convolution.width)}
    if isinstance(mixer, HeadedStateSpace):
        found[mixer.norm.name] = (mixer.groups, mixer.out_proj.in_features // mixer.groups)
    return found


def mixer_modules(mixer: Mixer) -> Iterator[str]:
    """Modules that are neither linears that are compressed nor norms."""
    yield mixer.convolution.module
    if isinstance(mixer, StateSpace):
        yield mixer.step


def mixer_single(mixer: Mixer, name_of: Callable[[str], str]) -> Iterator[Entry]:
    """Its tensors that are of no module: the decay, what is added of the input, and the bias of steps."""
    if isinstance(mixer, ShortConvolution):
        return
    column = (mixer.heads, 1) if isinstance(mixer, HeadedStateSpace) else None
    decay, direct = f"{mixer.module}.A_log", f"{mixer.module}.D"
    yield Entry(name_of(decay), (Part(decay, shape=column, decay=True),))
    yield Entry(name_of(direct), (Part(direct, shape=column),))
    if isinstance(mixer, HeadedStateSpace):
        yield Entry(f"{name_of(f'{mixer.module}.dt_proj')}.bias", (Part(f"{mixer.module}.dt_bias"),))
