"""Multi-head latent attention: q, and k and v, come from narrow normalized states; a key's rotated channels
are the same for all heads.

DeepSeek-AI, DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model, 2024, arXiv
2405.04434.
"""

from dataclasses import replace
from math import log

from ....errors import CheckpointError
from ..anatomy import Shapes
from ..block_anatomy import Attention, Latent, Linear, Rope
from ._config import rope
from ._tensors import Config, flag, integer, linear, norm, number

# transformers' own for these norms, whatever the config says.
EPS = 1e-6
PARTS = frozenset(
    f"self_attn.{name}"
    for name in (
        *("q_proj", "q_a_proj", "q_a_layernorm", "q_b_proj"),
        *("kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj", "o_proj"),
    )
)


def latent_rope(config: Config) -> Rope:
    """The rope of a key's rotated channels."""
    found = rope(config, integer(config, "qk_rope_head_dim"))
    if found.dim != integer(config, "qk_rope_head_dim"):
        raise CheckpointError("config.json: partial_rotary_factor is for heads whose channels are not apart")
    return replace(found, interleaved=flag(config, "rope_interleave", True))


def latent_attention(config: Config, shapes: Shapes, module: str, hidden: int) -> Attention:
    """The attention of the block's ``module``."""
    heads, rank = integer(config, "num_attention_heads"), integer(config, "kv_lora_rank")
    plain, turned = integer(config, "qk_nope_head_dim"), integer(config, "qk_rope_head_dim")
    width, values = plain + turned, integer(config, "v_head_dim")
    if integer(config, "num_key_value_heads", heads) != heads:
        raise CheckpointError("config.json: latent attention has as many key/value heads as query heads")
    if values > width:
        raise CheckpointError(f"config.json: v_head_dim {values} is more than the {width} channels of a key")
    q_a = q_a_norm = None
    if f"{module}.q_a_proj.weight" in shapes:
        q_a = linear(shapes, f"{module}.q_a_proj", "q_a", inputs=hidden)
        q_a_norm = norm(shapes, f"{module}.q_a_layernorm", "rms", EPS, q_a.out_features)
        q = linear(shapes, f"{module}.q_b_proj", "q_b", inputs=q_a.out_features, outputs=heads * width)
    else:
        q = linear(shapes, f"{module}.q_proj", "q", inputs=hidden, outputs=heads * width)
    kv_a = linear(shapes, f"{module}.kv_a_proj_with_mqa", "kv_a", inputs=hidden, outputs=rank + turned)
    kv_b = linear(shapes, f"{module}.kv_b_proj", "kv_b", inputs=rank, outputs=heads * (plain + values))
    return Attention(
        q=q,
        k=Linear(f"{kv_b.name}.k", "k", heads * width, rank, kv_b.bias),
        v=Linear(f"{kv_b.name}.v", "v", heads * values, rank, kv_b.bias),
        o=linear(shapes, f"{module}.o_proj", "o", inputs=heads * values, outputs=hidden),
        heads=heads,
        kv_heads=heads,
        head_dim=width,
        scale=width**-0.5 * temperature(latent_rope(config)),
        latent=Latent(
            q_a=q_a,
            q_a_norm=q_a_norm,
            kv_a=kv_a,
            kv_a_norm=norm(shapes, f"{module}.kv_a_layernorm", "rms", EPS, rank),
            kv_b=kv_b,
            turned=turned,
        ),
    )


def temperature(turned: Rope) -> float:
    """What a stretched rope multiplies scores by."""
    scaling = turned.scaling
    share = scaling.get("mscale_all_dim") or 0
    if not share or "factor" not in scaling:
        return 1.0
    factor = number(scaling, "factor", 1.0)
    stretch = 1.0 if factor <= 1 else 0.1 * number(scaling, "mscale_all_dim", 1.0) * log(factor) + 1.0
    return stretch**2
