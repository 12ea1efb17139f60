"""What mixes tokens in the place of attention, as llama.cpp has it: sizes by the names of its settings, the
tensors that are of no linear, and what its arithmetic of them leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

from ..block_parts.mixer_anatomy import HeadedStateSpace, Mixer, ShortConvolution, StateSpace
from . import architecture as names
from .entry import Entry, Part

_KINDS = {
    ShortConvolution: names.SHORT_CONVOLUTIONS,
    StateSpace: names.STATE_SPACES,
    HeadedStateSpace: names.HEADED_STATES,
}


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


def folded(mixer: Mixer) -> dict[str, tuple[int, ...]]:
    """By module, the shape of its weight there, where that is another: convolutions without their one input,
    the norm of a state space in heads by its groups.
    """
    convolution = mixer.convolution
    found: dict[str, tuple[int, ...]] = {convolution.module: (convolution.channels, convolution.width)}
    if isinstance(mixer, HeadedStateSpace):
        found[mixer.norm.name] = (mixer.groups, mixer.out_proj.in_features // mixer.groups)
    return found


def modules(mixer: Mixer) -> Iterator[str]:
    """Modules that are neither linears that are compressed nor norms."""
    yield mixer.convolution.module
    if isinstance(mixer, StateSpace):
        yield mixer.step


def single(mixer: Mixer, name_of: Callable[[str], str]) -> Iterator[Entry]:
    """Its tensors that are of no module: the decay, what is added of the input, and the bias of steps."""
    if isinstance(mixer, ShortConvolution):
        return
    column = (mixer.heads, 1) if isinstance(mixer, HeadedStateSpace) else None
    decay, direct = f"{mixer.module}.A_log", f"{mixer.module}.D"
    yield Entry(name_of(decay), (Part(decay, shape=column, decay=True),))
    yield Entry(name_of(direct), (Part(direct, shape=column),))
    if isinstance(mixer, HeadedStateSpace):
        yield Entry(f"{name_of(f'{mixer.module}.dt_proj')}.bias", (Part(f"{mixer.module}.dt_bias"),))
