"""``TrainingOptions``: the ``training`` section of a recipe, which every pass that learns reads."""

from typing import Any, Self

from pydantic import BaseModel, Field

from ...files.limits import LARGEST_SEED
from ..measure.reading import LoopPrecision
from ..numbers.option_model import OptionModel
from .train_state import Schedule


class TrainingSection(OptionModel):
    """A section whose defaults a pass may have of its own: what a recipe sets is laid over them."""

    def over(self, given: Any) -> Any:
        """``given``, a mapping of some options or a whole section, with the rest from here."""
        return self.model_dump() | given if isinstance(given, dict) else given

    def but(self, **changes: Any) -> Self:
        """The same section with some of it changed."""
        return self.model_copy(update=changes)


class TrainingOptions(TrainingSection):
    """How a pass trains: the budget, the optimizer, and what is held out."""

    learning_rate: float = Field(
        2e-3, gt=0, le=0.1, description="learning rate, relative to the size of each parameter"
    )
    epochs: int = Field(2, ge=1, le=1000, description="how often the calibration text is learned from")
    tokens: int | None = Field(None, ge=1, description="budget of tokens to learn from, in place of epochs")
    max_time: float | None = Field(
        None, gt=0, description="time limit per training pass, minutes; null is none"
    )
    batch_tokens: int = Field(2048, ge=1, description="tokens of one optimizer step, at least")
    micro_batch_tokens: int = Field(
        1024, ge=1, description="tokens that go through the model at once; gradients accumulate over a step"
    )
    warmup: float = Field(
        0.1, ge=0, le=1, description="fraction of the steps in which the learning rate rises"
    )
    schedule: Schedule = Field(
        "cosine", description="decay of the learning rate: cosine, to a tenth, or two_stages, to zero"
    )
    weight_decay: float = Field(0.0, ge=0, le=10, description="AdamW's decoupled weight decay")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of an exponential moving average of the weights; 0 keeps none"
    )
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient of all parameters")
    measurements: int = Field(6, ge=1, description="evaluations of the held-out loss, after the first")
    patience: int | None = Field(
        None, ge=1, description="evaluations without improvement after which training stops; null goes on"
    )
    checkpointing: bool = Field(
        False, description="gradient checkpointing: activations are computed twice to hold fewer"
    )
    top_k: int = Field(256, ge=1, description="teacher logits kept per token; the others are summed")
    cache: bool = Field(
        True, description="cache the teacher's logits on disk; false runs the teacher at every step"
    )
    precision: LoopPrecision = Field(
        "auto",
        description="autocast type; auto is bfloat16 where the processor computes in it, else float16 on a "
        "GPU that has it, else float32",
    )
    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="seed of the order of the text and of what begins at random"
    )


def own_training(kind: type[BaseModel], data: Any) -> Any:
    """``data`` of a pass of this ``kind``, its ``training`` section laid over the defaults of the pass."""
    if not isinstance(data, dict) or "training" not in data:
        return data
    return data | {"training": kind.model_fields["training"].default.over(data["training"])}
