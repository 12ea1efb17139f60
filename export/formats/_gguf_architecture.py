"""What llama.cpp calls a family, and what of a model its arithmetic of that family knows.

A family is a row of a table: whatever a model has beyond its row is refused, since llama.cpp would leave it
out without a word. Names of tensors come from the gguf package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import BlockAnatomy
from ...errors import InputError

_WAY_OUT = "export to onnx"


@dataclass(frozen=True)
class GgufArchitecture:
    """A row.

    Attributes:
        name: llama.cpp's.
        neighbours: it turns neighbouring channels of a query or key, where others turn channels half a head
            apart.
        activation: of the MLP, whatever the model says.
        holds: what a model may have beyond RMS norms before attention and MLP, and a gate.
        plain_every: each block of this number has no rotary positions; 0 for none.
        tied: whether the head may be the embedding.
    """

    name: str
    neighbours: bool = False
    activation: str = "silu"
    holds: frozenset[str] = frozenset()
    plain_every: int = 0
    tied: bool = True

    def names(self, blocks: int) -> Callable[[str], str]:
        """Gives what a module is called there by its stored name, in a model of so many ``blocks``; raises
        InputError where there is no such place.
        """
        from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

        (architecture,) = (key for key, name in MODEL_ARCH_NAMES.items() if name == self.name)
        known = get_tensor_name_map(architecture, blocks)

        def name_of(module: str) -> str:
            found = known.get_name(module)
            if found is None:
                raise InputError(f"llama.cpp's {self.name} has no place for {module}", fix=_WAY_OUT)
            return str(found)

        return name_of


def _row(name: str, *holds: str, **more: object) -> GgufArchitecture:
    return GgufArchitecture(name, holds=frozenset(holds), **more)  # type: ignore[arg-type]


_ATTENTION_BIASES, _BIASES = "biases of q, k and v", "biases"
_HEAD_NORMS, _NORMS_OVER_HEADS = "norms of queries and keys", "norms over all heads"
_LAYER_NORMS, _OFFSET_NORMS, _BEHIND = "layer norms", "offset norms", "norms behind attention and MLP"
_PARALLEL, _NO_GATE, _PART = "parallel blocks", "an MLP without a gate", "positions in part of a head"
_FUSED_QKV, _FUSED_MLP = "fused q, k and v", "fused gate and up"
_SCALED_SCORES, _SCALED_EMBEDDINGS = "scaled scores", "scaled embeddings"
_SCALED_RESIDUALS, _SCALED_LOGITS = "scaled residuals", "scaled logits"
_SCALES = (_SCALED_SCORES, _SCALED_EMBEDDINGS, _SCALED_RESIDUALS, _SCALED_LOGITS)
ARCHITECTURES = {
    "llama": _row("llama", neighbours=True),
    "mistral": _row("llama", neighbours=True),
    "qwen2": _row("qwen2", _ATTENTION_BIASES),
    "qwen3": _row("qwen3", _HEAD_NORMS),
    "smollm3": _row("smollm3", neighbours=True, plain_every=4),
    "granite": _row("granite", *_SCALES, neighbours=True),
    "olmo2": _row("olmo2", _NORMS_OVER_HEADS, _BEHIND, tied=False),
    "ernie4_5": _row("ernie4_5", neighbours=True),
    "starcoder2": _row(
        "starcoder2", _ATTENTION_BIASES, _BIASES, _LAYER_NORMS, _NO_GATE, activation="gelu_pytorch_tanh"
    ),
    "stablelm": _row("stablelm", _ATTENTION_BIASES, _LAYER_NORMS, _PART, tied=False),
    "nemotron": _row(
        *("nemotron", _LAYER_NORMS, _NO_GATE, _PART, _OFFSET_NORMS), activation="relu2", tied=False
    ),
    "phi3": _row("phi3", _FUSED_QKV, _FUSED_MLP, _PART),
    "gpt_neox": _row(
        *("gptneox", _ATTENTION_BIASES, _BIASES, _LAYER_NORMS, _NO_GATE, _PART),
        *(_PARALLEL, _FUSED_QKV),
        activation="gelu",
    ),
    "cohere": _row("command-r", _LAYER_NORMS, _PARALLEL, _SCALED_LOGITS, neighbours=True),
}


def architecture_of(anatomy: Anatomy) -> GgufArchitecture:
    """The row of a model.

    Raises:
        InputError: a family without one, or what llama.cpp does not know of it.
    """
    found = ARCHITECTURES.get(anatomy.model_type)
    if found is None:
        raise InputError(
            f"a {anatomy.model_type} model cannot be written as GGUF yet",
            fix=f"known: {', '.join(ARCHITECTURES)}; {_WAY_OUT} instead",
        )
    for feature in _features(anatomy, found):
        if feature not in found.holds:
            raise InputError(f"llama.cpp's {found.name} does not know {feature}", fix=_WAY_OUT)
    return found


def _features(anatomy: Anatomy, found: GgufArchitecture) -> Iterator[str]:
    """What the model has beyond the plainest of llama.cpp's."""
    for rope in anatomy.ropes():
        if rope.scaling:
            yield "rotary positions that are scaled"
        if rope.interleaved and not found.neighbours:
            yield "positions that turn neighbouring channels"
    if anatomy.position_embedding is not None or anatomy.embedding_norm is not None:
        yield "a table of positions, or a norm of the embedding"
    if anatomy.tied and not found.tied:
        yield "a head that is the embedding"
    if anatomy.embedding_scale != 1:
        yield _SCALED_EMBEDDINGS
    if anatomy.logit_form is not None:
        yield _SCALED_LOGITS if anatomy.logit_form.softcap is None else "capped logits"
    for block in anatomy.blocks:
        yield from _of_block(block, found)


def _of_block(block: BlockAnatomy, found: GgufArchitecture) -> Iterator[str]:
    attention, mlp = block.attention, block.mlp
    biased = {linear.role for linear in block.linears() if linear.bias}
    norms = [norm for norm in block.norms() if norm not in (attention.q_norm, attention.k_norm)]
    plain = found.plain_every and (block.index + 1) % found.plain_every == 0
    has = {
        _ATTENTION_BIASES: bool(biased & {"q", "k", "v", "qkv"}),
        _BIASES: bool(biased - {"q", "k", "v", "qkv"}),
        _LAYER_NORMS: any(norm.kind == "layer" for norm in norms),
        _OFFSET_NORMS: any(norm.offset for norm in norms),
        _HEAD_NORMS: attention.q_norm is not None and not attention.normed_over_heads,
        _NORMS_OVER_HEADS: attention.normed_over_heads,
        "norms before o or down": block.normed_inside,
        _BEHIND: block.order in ("behind", "post", "late"),
        "norms before and behind": block.attention_norm is not None or block.mlp_norm is not None,
        _PARALLEL: block.order == "parallel",
        _NO_GATE: mlp.gate is None,
        f"an MLP with {mlp.activation}": mlp.activation != found.activation,
        _FUSED_QKV: attention.qkv is not None,
        _FUSED_MLP: mlp.gate_up is not None,
        _PART: attention.rope is not None and attention.rope.dim != attention.head_dim,
        f"block {block.index} {'with' if plain else 'without'} rotary positions": (attention.rope is None)
        != bool(plain),
        "capped scores": attention.softcap is not None,
        _SCALED_SCORES: attention.scale is not None,
        _SCALED_RESIDUALS: block.residual_scale != 1,
        "experts": block.experts is not None,
    }
    yield from (feature for feature, present in has.items() if present)
