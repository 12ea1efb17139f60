"""Numbers that a GGUF file states: caps, factors, epsilons, and the counts and sizes of heads and experts.
They are held against the model that is made of its settings before a weight is read: one that has a default
in the place of a number would answer without an error, and not as the file says.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from .....errors import CheckpointError
from ...anatomy import Anatomy
from ...block_anatomy import Attention, Experts
from ...gguf.entry import sizes_of

_SLOPES = 8.0  # the exponent of the least bias by distance, in every family that has them
_SOFTMAX, _SIGMOID = 1, 2  # what becomes of the scores of experts, by llama.cpp's number
_AS_STORED = 1e-5  # of a number in float32

Found = float | tuple[int, ...] | None


def _of_heads(part: Attention) -> dict[str, Found]:
    return {
        "attention.head_count": part.heads,
        "attention.head_count_kv": part.kv_heads,
        "attention.key_length": part.head_dim,
        "attention.value_length": part.v.out_features // part.kv_heads,
        "attention.scale": part.scale,
        "attention.max_alibi_bias": None if part.slopes is None else _SLOPES,
        "attention.clamp_kqv": None,
        "attn_logit_softcapping": part.softcap,
    }


def _of_experts(experts: Experts, width: int) -> dict[str, Found]:
    shared = None if experts.shared is None else experts.shared.up.out_features
    form = experts.router_form
    return {
        "expert_count": experts.count,
        "expert_used_count": experts.chosen,
        "expert_feed_forward_length": width,
        "expert_shared_feed_forward_length": shared,
        "expert_weights_norm": experts.normalized,
        "expert_gating_func": _SOFTMAX if form is None else _SIGMOID,
        "expert_weights_scale": 1.0 if form is None else form.scale,
        "expert_group_count": 1 if form is None else form.groups,
        "expert_group_used_count": 1 if form is None else form.chosen_groups,
    }


def _of_mixers(anatomy: Anatomy) -> dict[str, Found]:
    """Of a model some of whose blocks do not attend: heads of keys by block, and the sizes of the others."""
    mixers = [block.mixer for block in anatomy.blocks]
    others = [mixer for mixer in mixers if not isinstance(mixer, Attention)]
    if not others:
        return {}
    return {
        "attention.head_count_kv": tuple(getattr(mixer, "kv_heads", 0) for mixer in mixers),
        "attention.sliding_window": 0,
        "ssm.dt_b_c_rms": getattr(others[0], "step_norm", None) is not None,
        **sizes_of(others[0]),
    }


def factors_of(anatomy: Anatomy) -> dict[str, Found]:
    """What a file of the model states, by llama.cpp's name; None where the model has no such thing."""
    parts, form = anatomy.attentions(), anatomy.logit_form
    last = anatomy.final_norm or anatomy.blocks[0].norm2
    kinds = {"attention.layer_norm_rms_epsilon": "rms", "attention.layer_norm_epsilon": "layer"}
    local = {part.rope.theta for part in parts if part.rope is not None and part.sliding_window is not None}
    found: dict[str, Found] = {
        "block_count": anatomy.layers()[0],
        "decoder_block_count": anatomy.layers()[1],
        "embedding_length": anatomy.hidden_size,
        "embedding_scale": anatomy.embedding_scale,
        "residual_scale": anatomy.blocks[0].residual_scale,
        "final_logit_softcapping": None if form is None else form.softcap,
        "rope.freq_base_swa": local.pop() if len(local) == 1 else None,
        **{key: last.eps if last.kind == kind else None for key, kind in kinds.items()},
        **(_of_heads(parts[0]) if parts else {}),
        **_of_mixers(anatomy),
    }
    for block in anatomy.blocks:
        if block.experts is not None:
            return found | _of_experts(block.experts, block.mlp.up.out_features)
    return found


def check(anatomy: Anatomy, path: Path, stated: Mapping[str, object]) -> None:
    """Hold what was read of the file ``path`` against the settings of its architecture."""
    for name, found in factors_of(anatomy).items():
        said = stated.get(name)
        if isinstance(said, int | float | tuple) and not _same(said, found):
            read = "none" if found is None else _shown(found)
            raise CheckpointError(
                f"{path} says {name} {_shown(said)}, and the model that it describes has {read}",
                why="the model would answer in another way than it was trained for",
                fix="take the model's safetensors checkpoint",
            )


def _same(said: float | tuple[float, ...], found: Found) -> bool:
    if found is None:
        return False
    stated, read = (one if isinstance(one, tuple) else (one,) for one in (said, found))
    count = max(len(stated), len(read))
    stated, read = (one * count if len(one) == 1 else one for one in (stated, read))
    return len(stated) == len(read) and all(
        math.isclose(one, other, rel_tol=_AS_STORED) for one, other in zip(stated, read, strict=True)
    )


def _shown(number: float | tuple[float, ...]) -> str:
    return ", ".join(f"{one:g}" for one in (number if isinstance(number, tuple) else (number,)))
