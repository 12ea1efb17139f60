"""What a budget counts: weights of the blocks, bytes of the whole model, or its modelled time on a machine.

Time follows the roofline (Williams, Waterman, Patterson 2009, CACM 52:4), a linear at a time: the longer of
reading its weights once and multiplying ``tokens`` rows with them; attention adds the products of queries
with ``context`` keys and of the scores with as many values. The two numbers of a machine are those that
``edgepress devices show NAME`` prints. One token at a time is bound by bytes nearly everywhere, a prompt or a
sentence by arithmetic.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ...model.anatomy import Anatomy
from ...model.block_anatomy import Attention, Linear

# Times are whole femtoseconds, since the solver of widths counts in integers.
_UNITS = 1e15


class Budget(BaseModel):
    """What ``keep`` is a share of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    def _told(self) -> Self:
        if self.of == "latency" and (self.bandwidth is None or self.peak is None):
            raise ValueError("latency needs the machine's bandwidth (GB/s) and peak (TFLOPS)")
        return self

    def linear(self, linear: Linear) -> int:
        """The price of a linear of a block."""
        return self._matrix(linear.out_features * linear.in_features, self.block_bits)

    def attention(self, attention: Attention) -> int:
        """The price of what has no weights: scores and their products with values."""
        if self.of != "latency":
            return 0
        return self._time(4 * self.tokens * self.context * attention.heads * attention.head_dim)

    def outside(self, anatomy: Anatomy) -> int:
        """The price of embedding and head; a table that is only looked up takes no time."""
        table = anatomy.vocab_size * anatomy.hidden_size
        if self.of == "parameters":
            return 0
        if self.of == "bytes":
            return self._matrix(table, self.outside_bits) * (2 if anatomy.head and not anatomy.tied else 1)
        return self._matrix(table, self.outside_bits) if anatomy.head is not None else 0

    def total(self, anatomy: Anatomy) -> int:
        """The price of a whole model."""
        blocks = sum(map(self.linear, anatomy.linears()))
        return (
            blocks + sum(self.attention(block.attention) for block in anatomy.blocks) + self.outside(anatomy)
        )

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
