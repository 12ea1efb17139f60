"""What a budget counts. How wide each part of each block stays under it: :mod:`.widths`.

It counts weights of the blocks, bytes of the whole model, or its modelled time on a machine. Time follows the
roofline (Williams, Waterman, Patterson 2009, CACM 52:4), a linear at a time: the longer of reading its
weights once and multiplying ``tokens`` rows with them; attention adds the products of queries with
``context`` keys and of the scores with as many values. The two numbers of a machine are those that
``edgepress devices show NAME`` prints. One token at a time is bound by bytes nearly everywhere, a prompt or a
sentence by arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ....errors import RecipeError
from ...model.anatomy import Anatomy
from ...model.block_anatomy import Attention, BlockAnatomy, Linear
from ...numbers.option_model import OptionModel
from .units import PrunablePart

# Times are whole femtoseconds, since the solver of widths counts in integers.
_UNITS = 1e15
_MLPS = "cut its MLPs alone: parts: [mlp]"


class Budget(OptionModel):
    """What ``keep`` is a fraction of."""

    of: Literal["parameters", "bytes", "latency"] = Field(
        "parameters",
        description="weights of the blocks; bytes of blocks, embedding and head; or modelled time of all",
    )
    block_bits: float = Field(32, gt=0, description="a weight of a block, once later passes are through")
    outside_bits: float = Field(32, gt=0, description="a weight of the embedding or the head")
    bandwidth: float | None = Field(None, gt=0, description="of the machine's memory, in GB/s")
    peak: float | None = Field(None, gt=0, description="of the machine's arithmetic, in TFLOPS")
    tokens: int = Field(1, ge=1, description="rows at once: 1 for decoding, the prompt's length for prefill")
    context: int = Field(0, ge=0, description="keys that a query sees, on average")

    @model_validator(mode="after")
    def _has_machine(self) -> Self:
        if self.of == "latency" and (self.bandwidth is None or self.peak is None):
            raise ValueError("latency needs the machine's bandwidth (GB/s) and peak (TFLOPS)")
        return self

    def linear(self, linear: Linear) -> int:
        """The budget cost of a linear of a block."""
        return self._matrix(linear.out_features * linear.in_features, self.block_bits)

    def attention(self, attention: Attention) -> int:
        """The budget cost of what has no weights: scores and their products with values."""
        if self.of != "latency":
            return 0
        return self._time(4 * self.tokens * self.context * attention.heads * attention.head_dim)

    def outside(self, anatomy: Anatomy) -> int:
        """The budget cost of embedding and head; a table that is only looked up takes no time."""
        table = anatomy.vocab_size * anatomy.hidden_size
        if self.of == "parameters":
            return 0
        if self.of == "bytes":
            return self._matrix(table, self.outside_bits) * (2 if anatomy.head and not anatomy.tied else 1)
        return self._matrix(table, self.outside_bits) if anatomy.head is not None else 0

    def total(self, anatomy: Anatomy) -> int:
        """The budget cost of a whole model."""
        blocks = sum(map(self.linear, anatomy.linears()))
        attentions = (part for block in anatomy.blocks for part in block.attentions())
        return blocks + sum(map(self.attention, attentions)) + self.outside(anatomy)

    def _matrix(self, weights: int, bits: float) -> int:
        if self.of == "parameters":
            return weights
        if self.of == "bytes":
            return round(weights * bits / 8)
        assert self.bandwidth is not None
        return max(
            round(_UNITS * weights * bits / 8 / (self.bandwidth * 1e9)), self._time(2 * self.tokens * weights)
        )

    def _time(self, operations: int) -> int:
        assert self.peak is not None
        return round(_UNITS * operations / (self.peak * 1e12))


def _named(value: Any) -> Any:
    return {"of": value} if isinstance(value, str) else value


BudgetOption = Annotated[
    Budget,
    BeforeValidator(_named, json_schema_input_type=Literal["parameters", "bytes"] | dict[str, Any]),
    Field(description="what keep counts: parameters of blocks, bytes, or {of: latency, bandwidth, peak, …}"),
]
WEIGHTS = Budget()


@dataclass(frozen=True)
class BlockPart:
    """A part of a block that may be narrowed, with the ``counts`` of units it may keep."""

    block: BlockAnatomy
    part: PrunablePart
    budget: Budget = WEIGHTS

    @property
    def key(self) -> tuple[int, str]:
        """The block's index and the part's name."""
        return self.block.index, self.part.name

    @property
    def counts(self) -> Sequence[int]:
        """How many units may be kept, ascending."""
        return self.part.counts(self.block)

    def cost(self, count: int) -> int:
        """What the budget counts of the part with ``count`` units."""
        names = {linear.name for linear in self.part.linears(self.block)}
        narrow = self.part.narrowed(self.block, count)
        cost = sum(self.budget.linear(linear) for linear in narrow.linears() if linear.name in names)
        mine = (attention for attention in narrow.attentions() if attention.o.name in names)
        return cost + sum(map(self.budget.attention, mine))


def room_for(items: Sequence[BlockPart], anatomy: Anatomy, keep: float, budget: Budget = WEIGHTS) -> int:
    """What ``items`` may cost so that the model keeps the fraction ``keep`` of its cost."""
    total = budget.total(anatomy)
    others = total - sum(item.cost(item.counts[-1]) for item in items)
    least = sum(item.cost(item.counts[0]) for item in items)
    if others + least > keep * total:
        share = (others + least) / total
        kind = "weights of the blocks" if budget.of == "parameters" else f"{budget.of} of the model"
        raise RecipeError(
            f"keeping {keep:.0%} of the {kind} would take more than all that may go",
            fix=f"keep at least {share:.3f}, or prune other parts too (passes narrow and layers)",
        )
    return int(keep * total) - others


def check_cut(anatomy: Anatomy, items: Sequence[BlockPart]) -> None:
    """Refuse ``items`` of a model that cannot lose units there."""
    mixtures = [block.experts for block in anatomy.blocks if block.experts is not None]
    channels = any(item.part.name == "ffn" for item in items)
    if channels and mixtures and len(mixtures) < len(anatomy.blocks):
        raise RecipeError(
            "narrow: some blocks have experts and some have none, whose widths config.json says apart",
            fix="prune experts instead: pass experts",
        )
    if channels and any(one.router_form is not None for one in mixtures):
        raise RecipeError(
            f"narrow: how wide the shared expert of a {anatomy.model_type} is follows from the others",
            fix="prune experts instead: pass experts",
        )
    heads = any(item.part.name != "ffn" for item in items)
    if heads and anatomy.has_latents:
        raise RecipeError(
            f"narrow: keys and values of all heads of a {anatomy.model_type} come from one narrow state",
            fix="prune experts instead: pass experts",
        )
    if heads and any(block.attention.slopes for block in anatomy.blocks):
        raise RecipeError(
            f"each head of a {anatomy.model_type} has a slope that follows from its number",
            why="cut heads would give those that are left the slopes of others",
            fix=_MLPS,
        )
    if heads and any(block.attention.normed_over_heads for block in anatomy.blocks):
        raise RecipeError(
            f"{anatomy.model_type} normalizes q and k over all heads at once",
            why="cut heads would change what is left of the others",
            fix=_MLPS,
        )
    normed = next((item.block for item in items if item.block.normed_inside), None)
    if normed is not None:
        raise RecipeError(
            f"{normed.prefix} has norms inside attention and MLP, which take the mean over all channels",
            why="cut channels would change what is left",
            fix="drop whole blocks (pass layers), or prune weights (passes prune, sparsegpt, alps)",
        )
