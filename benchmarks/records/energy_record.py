"""``Energy``: the part of a measurement line that says what an energy counter counted, or why none did.

Joules stand as they were counted, window by window, so that every figure of energy can be worked out again.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

IDLE = "idle"


class EnergyWindow(BaseModel):
    """What was counted while one phase was repeated, or while the loaded model did nothing."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(gt=0)
    joules: float = Field(ge=0, description="of the counted domains together; 0 where nothing is counted yet")
    beside: dict[str, float] = Field(default_factory=dict, description="joules by domain, never added")
    began: float | None = Field(None, description="seconds since 1970")
    wraps: int = Field(0, description="how often a counter began again at zero")
    runs: int = Field(0, description="repetitions of the phase")
    units: int = Field(0, description="tokens or sentences that they got through")


class Energy(BaseModel):
    """The windows of one arm.

    Attributes:
        turns: one a process; each maps ``idle`` and the phases to their windows. A window in which the
            machine slept is not there.
        update_s: seconds from one step of the counter to the next; ``window_s`` is the least length asked of
            a window.
        disturbances: reasons to distrust what was counted, from the state of the machine around it.
        reason, fix: why nothing was counted, and the way out.
    """

    model_config = ConfigDict(extra="forbid")

    method: str = Field(description="rapl_pkg, nvml_counter, …, or none")
    kind: Literal["measured"] | None = None
    domains: list[str] = Field(default_factory=list, description="counted: they do not overlap")
    beside: list[str] = Field(default_factory=list, description="read too, and never added")
    update_s: float | None = None
    window_s: float | None = None
    units: dict[str, str] = Field(default_factory=dict, description="by phase: token or sentence")
    turns: list[dict[str, EnergyWindow]] = Field(default_factory=list)
    disturbances: list[str] = Field(default_factory=list)
    reason: str = ""
    fix: str = ""

    @property
    def in_words(self) -> str:
        """Why nothing was counted and the way out, in one line."""
        return f"{self.reason} → {self.fix}" if self.fix else self.reason
