"""``Processes``: one process, or several that ``accelerate launch`` started for one command.

The first one does what is done once: it writes files and runs the passes that do not learn. All of them learn
together: each takes its share of every step, and sums make them agree.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

# What the launcher sets where a model is to be spread in a way that is not done here.
_OTHERS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
    "FSDP_OFFLOAD_PARAMS": "FSDP with parameters in the memory of the host",
}
FSDP = "accelerate launch --use_fsdp --fsdp_version 2"
# How long the others wait for the first one, which may quantize for hours before anything is learned.
_PATIENCE = timedelta(days=30)


def is_follower() -> bool:
    """Whether this process was launched beside a first one."""
    return _launched_as("RANK", 0) > 0


def several_processes() -> bool:
    """Whether this process was launched as one of several; raises as :func:`is_follower`."""
    return _launched_as("WORLD_SIZE", 1) > 1


def _launched_as(variable: str, default: int) -> int:
    """A number that the launcher set, or ``default``."""
    value = os.environ.get(variable, "")
    if value and not value.isdecimal():
        raise InputError(
            f"the environment variable {variable} is {value!r}, which is no number of a process",
            why="`accelerate launch` and torchrun count their processes in RANK, WORLD_SIZE and LOCAL_RANK",
            fix=f"unset {variable}, or let the launcher set it",
        )
    return int(value or default)


def _shards() -> bool:
    """Whether the launch asks for FSDP2."""

    def on(variable: str) -> bool:
        return os.environ.get(variable, "").lower() in ("1", "true")

    fsdp = on("ACCELERATE_USE_FSDP")
    wrong = [name for variable, name in _OTHERS.items() if on(variable)]
    if fsdp and os.environ.get("FSDP_VERSION", "1") != "2":
        wrong.append("FSDP of version 1")
    if wrong:
        raise InputError(
            f"this launch spreads one model over its processes by {wrong[0]}, which edgepress does not do",
            fix=f"spread it by FSDP2 (`{FSDP}`), or launch without: every process then holds the model",
        )
    return fsdp


@dataclass(frozen=True)
class Processes:
    """``count`` processes, of which this is number ``index``, on its machine number ``local``.

    ``sharded`` ones hold a part of every block of a model that learns, and not all of it; whether they
    forget a gathered block until the way back is ``reshards``.
    """

    count: int = 1
    index: int = 0
    local: int = 0
    sharded: bool = False
    reshards: bool = True

    @classmethod
    def launched(cls, device: torch.device) -> Processes:
        """As many as the launcher started to work on ``device``, connected by Accelerate; one where none
        did.
        """
        count = _launched_as("WORLD_SIZE", 1)
        if count < 2:
            return cls()
        sharded = _shards()
        if max(_launched_as(variable, count) for variable in ("RANK", "LOCAL_RANK")) >= count:
            raise InputError(
                f"WORLD_SIZE says {count} processes, and RANK and LOCAL_RANK do not say which one this is",
                fix="start them with `accelerate launch` or torchrun, or unset WORLD_SIZE",
            )
        from accelerate import PartialState

        state: Any = PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)
        atexit.register(state.destroy_process_group)  # threads that are left alive abort the interpreter
        if state.num_processes != count:
            raise InputError(
                f"{count} processes were launched, and Accelerate does not connect them on {device.type}",
                fix="give --device cpu or cuda, or launch one process",
            )
        reshards = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"
        return cls(state.num_processes, state.process_index, state.local_process_index, sharded, reshards)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def device(self, device: torch.device) -> torch.device:
        """``device``, or the GPU that is this process's own."""
        import torch

        if self.count == 1 or device.type != "cuda":
            return device
        return torch.device("cuda", self.local)

    def share(self, items: Sequence[T]) -> list[T]:
        """Those of ``items`` that this process works on."""
        return list(items[self.index :: self.count])

    def turns(self, items: Sequence[T]) -> list[tuple[T, bool]]:
        """This process's share of ``items``, and that they count; where the model is sharded as many as any
        other process has, since all gather its blocks at once: what fills it up does not count.
        """
        turns = [(item, True) for item in self.share(items)]
        if self.sharded:
            turns += [(items[0], False)] * (-(-len(items) // self.count) - len(turns))
        return turns

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Make each of ``tensors`` its sum over all processes."""
        if self.count == 1:
            return
        import torch
        from accelerate.utils import reduce

        total = reduce(torch.cat([tensor.flatten() for tensor in tensors]), "sum")
        for tensor, part in zip(tensors, total.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def sum(self, number: float) -> float:
        """The sum of ``number`` over all processes."""
        return number if self.count == 1 else sum(self._gathered(number))

    def most(self, number: int) -> int:
        """The largest ``number`` of all processes."""
        return number if self.count == 1 else int(max(self._gathered(number)))

    def _gathered(self, number: float) -> list[float]:
        from accelerate.utils import gather_object

        return gather_object([number])  # type: ignore[no-any-return]

    def meet(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            from accelerate.utils import wait_for_everyone

            wait_for_everyone()

    def agree(self, value: T) -> T:
        """The first one's ``value``, once it has one."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        box = [value]
        broadcast_object_list(box, from_process=0)
        return box[0]


ALONE = Processes()
