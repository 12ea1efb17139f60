"""What llama.cpp calls a family, and what of a model its arithmetic of that family knows.

A family is a row of a table: whatever a model has beyond its row is refused, since llama.cpp would leave it
out without a word. Names of tensors come from the gguf package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

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
        head: a matrix of its own, the embedding, or either.
        windows: it reads the window that the file names, and has it in the blocks with rotary positions.
        table: its positions are a table, and not rotary.
        square: all heads together are as wide as the model.
        windowed_at: a model of so many blocks is taken for one with windows; 0 for none.
    """

    name: str
    neighbours: bool = False
    activation: str = "silu"
    holds: frozenset[str] = frozenset()
    plain_every: int = 0
    head: Literal["own", "embedding", "either"] = "either"
    windows: bool = False
    table: bool = False
    square: bool = False
    windowed_at: int = 0

    @property
    def scales_scores(self) -> bool:
        """Whether it reads the factor of the scores."""
        return _SCALED_SCORES in self.holds

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
_AROUND = "norms before and behind"
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
    "olmo2": _row("olmo2", _NORMS_OVER_HEADS, _BEHIND, head="own", square=True),
    "olmo3": _row("olmo2", _NORMS_OVER_HEADS, _BEHIND, head="own", square=True),
    "exaone4": _row("exaone4", _HEAD_NORMS, _BEHIND, windowed_at=64),
    "glm4": _row("glm4", _ATTENTION_BIASES, _AROUND, _FUSED_MLP, _PART, neighbours=True),
    "ernie4_5": _row("ernie4_5", neighbours=True),
    "starcoder2": _row(
        "starcoder2", _ATTENTION_BIASES, _BIASES, _LAYER_NORMS, _NO_GATE, activation="gelu_pytorch_tanh"
    ),
    "stablelm": _row("stablelm", _ATTENTION_BIASES, _LAYER_NORMS, _PART, head="own"),
    "nemotron": _row(
        *("nemotron", _LAYER_NORMS, _NO_GATE, _PART, _OFFSET_NORMS), activation="relu2", head="own"
    ),
    "phi": _row(
        *("phi2", _ATTENTION_BIASES, _BIASES, _LAYER_NORMS, _NO_GATE, _PART, _PARALLEL),
        activation="gelu_new",
        head="own",
        square=True,
    ),
    "phi3": _row("phi3", _FUSED_QKV, _FUSED_MLP, _PART),
    "gpt_neox": _row(
        *("gptneox", _ATTENTION_BIASES, _BIASES, _LAYER_NORMS, _NO_GATE, _PART),
        *(_PARALLEL, _FUSED_QKV),
        activation="gelu",
    ),
    "cohere": _row("command-r", _LAYER_NORMS, _PARALLEL, _SCALED_LOGITS, neighbours=True, head="embedding"),
    "cohere2": _row(
        *("cohere2", _LAYER_NORMS, _PARALLEL, _SCALED_LOGITS),
        neighbours=True,
        head="embedding",
        plain_every=4,
        windows=True,
        square=True,
    ),
    "gpt2": _row(
        *("gpt2", _ATTENTION_BIASES, _BIASES, _LAYER_NORMS, _NO_GATE, _FUSED_QKV),
        activation="gelu_new",
        table=True,
        square=True,
    ),
}

_NO_BPE = "its tokenizers are no byte-level BPE, and no others are written"
_NOT_KNOWN = "llama.cpp has no arithmetic of the family"
_OTHER_FORM = "llama.cpp has another form of it: {}"
# Why families have no row, where that is known.
WITHOUT = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), _NO_BPE),
    **dict.fromkeys(("helium", "opt", "gptj"), _NOT_KNOWN),
    **dict.fromkeys(("ministral", "ministral3", "falcon", "bloom", "mpt"), "no row was tried"),
    "bitnet": _OTHER_FORM.format("`--format bitnet` writes what transformers loads"),
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
            why=WITHOUT.get(anatomy.model_type, ""),
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
    if len(anatomy.blocks) == found.windowed_at:
        yield f"{found.windowed_at} blocks that see everything"
    if len(anatomy.ropes()) > 1:
        yield "positions that differ from block to block"
    if (anatomy.position_embedding is not None) != found.table:
        yield "positions without a table" if found.table else "a table of positions"
    if anatomy.embedding_norm is not None:
        yield "a norm of the embedding"
    if anatomy.tied and found.head == "own":
        yield "a head that is the embedding"
    if not anatomy.tied and found.head == "embedding":
        yield "a head that is not the embedding"
    if anatomy.embedding_scale != 1:
        yield _SCALED_EMBEDDINGS
    if anatomy.logit_form is not None:
        yield _SCALED_LOGITS if anatomy.logit_form.softcap is None else "capped logits"
    widths = {part.heads * part.head_dim for part in anatomy.attentions()}
    if found.square and widths != {anatomy.hidden_size}:
        yield "heads that together are not as wide as the model"
    for block in anatomy.blocks:
        yield from _of_block(block, found)


def _of_block(block: BlockAnatomy, found: GgufArchitecture) -> Iterator[str]:
    attention, mlp = block.attention, block.mlp
    biased = {linear.role for linear in block.linears() if linear.bias}
    norms = [norm for norm in block.norms() if norm not in (attention.q_norm, attention.k_norm)]
    plain = found.table or (found.plain_every and (block.index + 1) % found.plain_every == 0)
    windowless = found.windows and (attention.sliding_window is None) != (attention.rope is None)
    has = {
        _ATTENTION_BIASES: bool(biased & {"q", "k", "v", "qkv"}),
        _BIASES: bool(biased - {"q", "k", "v", "qkv"}),
        _LAYER_NORMS: any(norm.kind == "layer" for norm in norms),
        _OFFSET_NORMS: any(norm.offset for norm in norms),
        _HEAD_NORMS: attention.q_norm is not None and not attention.normed_over_heads,
        _NORMS_OVER_HEADS: attention.normed_over_heads,
        "norms before o or down": block.normed_inside,
        _BEHIND: block.order in ("behind", "post", "late"),
        _AROUND: block.attention_norm is not None or block.mlp_norm is not None,
        _PARALLEL: block.order == "parallel",
        _NO_GATE: mlp.gate is None,
        f"an MLP with {mlp.activation}": mlp.activation != found.activation,
        _FUSED_QKV: attention.qkv is not None,
        _FUSED_MLP: mlp.gate_up is not None,
        _PART: attention.rope is not None and attention.rope.dim != attention.head_dim,
        f"block {block.index} {'with' if plain else 'without'} rotary positions": (attention.rope is None)
        != bool(plain),
        f"the window, or none, of block {block.index}": windowless,
        "capped scores": attention.softcap is not None,
        _SCALED_SCORES: attention.scale not in (None, attention.head_dim**-0.5),
        _SCALED_RESIDUALS: block.residual_scale != 1,
        "experts": block.experts is not None,
    }
    yield from (feature for feature, present in has.items() if present)
