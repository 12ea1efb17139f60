"""``GgufArchitecture``: what llama.cpp calls a family, and what of a model its arithmetic of it knows.

A family is a row of :mod:`.families`. Whatever a model has beyond its row is refused, since llama.cpp
would leave it out without a word; so is a model that lacks what llama.cpp computes in any case. Names of
tensors come from the gguf package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ....errors import InputError

WAY_OUT = "export to onnx"

# What a model may have beyond RMS norms before attention and MLP, a gate, and rotary positions.
ATTENTION_BIASES, BIASES = "biases of q, k and v", "biases"
HEAD_NORMS, NORMS_OVER_HEADS = "norms of queries and keys", "norms over all heads"
LAYER_NORMS, OFFSET_NORMS, BEHIND = "layer norms", "offset norms", "norms behind attention and MLP"
AROUND, EMBEDDING_NORM = "norms before and behind", "a norm of the embedding"
PARALLEL, NO_GATE, PART = "parallel blocks", "an MLP without a gate", "positions in part of a head"
FUSED_QKV, FUSED_MLP = "fused q, k and v", "fused gate and up"
SCALED_SCORES, SCALED_EMBEDDINGS = "scaled scores", "scaled embeddings"
SCALED_RESIDUALS, SCALED_LOGITS = "scaled residuals", "scaled logits"
ROOT_SCALED = "embeddings that are scaled by the root of their width"
CAPPED_SCORES, CAPPED_LOGITS, SLOPES = "capped scores", "capped logits", "biases by distance"
LOCAL_ROPE = "positions of their own in blocks with a window"
SINKS, LATENT = "sinks of attention", "latent attention"
EXPERTS, NORMALIZED = "experts", "weights of the chosen experts that add up to one"
SHARED, SHARED_GATE = "an expert for all tokens", "a gate of the expert for all tokens"
ROUTER_FORM, ALTERNATING = "a router of sigmoids and groups", "rows of gate and up that alternate"
CLAMPED = "clamped gates"
# Of encoders.
ENCODES, NORMED_SUMS, TOKEN_TYPES = "states in the place of logits", "norms of sums", "token types"
LATE, LABELS = "a first block without a norm before attention", "labels of texts"
# Of encoder–decoders.
TWO_STACKS, DISTANCES = "an encoder and a decoder", "tables of biases by distance"
NO_MLP, SHORT_CONVOLUTIONS, STATE_SPACES = "blocks without an MLP", "short convolutions", "state spaces"
HEADED_STATES, STEP_NORMS = "state spaces in heads", "norms of step, B and C"


@dataclass(frozen=True)
class GgufArchitecture:
    """A row.

    Attributes:
        name: llama.cpp's.
        neighbours: it turns neighbouring channels of a query or key, where others turn channels half a head
            apart.
        activation: of the MLP, whatever the model says.
        holds: what a model may have beyond the plainest; ``needs`` are those of them that it must have.
        plain_every: each block of this number has no rotary positions; 0 for none.
        head: a matrix of its own, the embedding, or either.
        windows: it reads the window that the file names, and has it in all blocks but each of this number; 0
            where it has none. first_whole: those that have none begin with the first block.
        table: its positions are a table, and not rotary.
        square: all heads together are as wide as the model, and where ``square_keys`` those of keys too.
        windowed_at: a model of so many blocks is taken for one with windows; 0 for none.
        wide_at: of a model of so many blocks scores are scaled by the width of the model for each head, not
            by that of a head; 0 for none.
        stretches: the kinds of rotary positions for longer texts that it reads from a file.
        limit: what gates are clamped at.
        dense_first: the first blocks may be without experts.
        lite_at: models of so many blocks are taken for ones whose queries come from no narrow state.
        joined: q, k and v are one tensor of the file, whatever they are in a checkpoint.
        called: what modules of a block are called there, where the gguf package does not know their names.
        ungated: the activation of an MLP without a gate, where that is another.
        score_scale: what scores are multiplied by, where that does not follow from the width of a head.
        folds_logits: it does not scale logits, so that the last norm does.
        farthest: distances beyond this one have one bias.
        label_activation: of the linear that comes before that of the labels; label_norm: whether a norm comes
            between them. label_pooling: of the states that both read.
        bare_norms: no norm has a bias.
        log_times: what YaRN's multiplier of the logarithm is times there, where that is for scores too; None
            where scores have none.
        misses: how far its logits are from ours where weights are in few bits, if that is too far for a file.
    """

    name: str
    neighbours: bool = False
    activation: str = "silu"
    holds: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    plain_every: int = 0
    head: Literal["own", "embedding", "either"] = "either"
    windows: int = 0
    table: bool = False
    square: bool = False
    square_keys: bool = False
    windowed_at: int = 0
    wide_at: int = 0
    stretches: frozenset[str] = frozenset()
    limit: float | None = None
    dense_first: bool = False
    lite_at: frozenset[int] = frozenset()
    first_whole: bool = False
    joined: bool = False
    called: Mapping[str, str] = field(default_factory=dict)
    ungated: str | None = None
    score_scale: float | None = None
    folds_logits: bool = False
    farthest: int | None = None
    label_activation: str = "tanh"
    label_norm: bool = False
    label_pooling: str = "first"
    bare_norms: bool = False
    log_times: float | None = None
    misses: str = ""

    @property
    def scales_scores(self) -> bool:
        """Whether it reads the factor of the scores."""
        return SCALED_SCORES in self.holds

    @property
    def divides_logits(self) -> bool:
        """Whether the factor of the logits is a divisor there."""
        return SCALED_RESIDUALS in self.holds

    def names(self, blocks: int, base: str) -> Callable[[str], str]:
        """Gives what a module is called there by its stored name, in a model of so many ``blocks`` whose
        names begin with ``base``; raises InputError where there is no such place.
        """
        from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

        (architecture,) = (key for key, name in MODEL_ARCH_NAMES.items() if name == self.name)
        known = get_tensor_name_map(architecture, blocks)

        def name_of(module: str) -> str:
            inner = module.removeprefix(base)
            of_block, _, part = inner.removeprefix("layers.").partition(".")
            if part in self.called:
                return f"blk.{of_block}.{self.called[part]}"
            found = next(filter(None, map(known.get_name, (module, inner, f"model.{inner}"))), None)
            if found is None:
                raise InputError(f"llama.cpp's {self.name} has no place for {module}", fix=WAY_OUT)
            return str(found)

        return name_of
