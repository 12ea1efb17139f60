"""The floor of GPTQ's time: the arithmetic that nobody can leave out, at the rate of this machine's products.

Two forward passes over the calibration tokens (one to see the inputs of a block, one to make those of the
next from the quantized weights), and the Gram of every group of layers that reads the same inputs, of which
half is enough since it is symmetric. The recursion itself, loading, tokenizing and writing are not counted.
"""

import time
from dataclasses import dataclass

from ....compress.model.anatomy import Anatomy

_SECONDS = 1.0


@dataclass(frozen=True)
class Floor:
    """Multiply-adds of the forward passes and of the Grams, and multiply-adds a CPU second of one thread."""

    forward: float
    grams: float
    rate: float

    @property
    def seconds(self) -> float:
        """CPU seconds."""
        return (self.forward + self.grams) / self.rate

    def sentence(self) -> str:
        """For a results file; an operation is half a multiply-add."""
        return (
            f"Lower bound for GPTQ on this machine: two forward passes ({2 * self.forward / 1e12:.1f} TFLOP) "
            f"and half of each Gram ({2 * self.grams / 1e12:.1f} TFLOP) at the {2 * self.rate / 1e9:.0f} "
            f"GFLOP/s that float32 products of its shapes reach on one thread: "
            f"{self.seconds:.0f} CPU seconds."
        )


def forward_work(anatomy: Anatomy, tokens: int, length: int) -> float:
    """Multiply-adds of ``tokens`` in sequences of ``length`` through the blocks once, attention causal."""
    total = 0.0
    for block in anatomy.blocks:
        total += tokens * sum(linear.out_features * linear.in_features for linear in block.linears())
        total += tokens * length * block.attention.heads * block.attention.head_dim
    return total


def gram_work(anatomy: Anatomy, tokens: int) -> float:
    """Multiply-adds of half of every Gram."""
    widths = [group[0].in_features for block in anatomy.blocks for group in block.inputs()]
    return sum(tokens * width**2 / 2 for width in widths)


def product_rate(rows: int, columns: int, inner: int) -> float:
    """Multiply-adds a CPU second of float32 products ``[rows, inner] · [inner, columns]`` on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    left, right = torch.ones(rows, inner), torch.ones(inner, columns)
    left @ right
    start, count = time.process_time(), 0
    while time.process_time() - start < _SECONDS:
        left @ right
        count += 1
    rate = count * rows * columns * inner / (time.process_time() - start)
    torch.set_num_threads(threads)
    return rate


def floor(anatomy: Anatomy, tokens: int, length: int, batch_tokens: int) -> Floor:
    """The floor for ``tokens`` calibration tokens that go through the model ``batch_tokens`` at a time."""
    widest = max(linear.out_features for linear in anatomy.linears())
    rate = product_rate(batch_tokens, widest, anatomy.hidden_size)
    return Floor(2 * forward_work(anatomy, tokens, length), gram_work(anatomy, tokens), rate)
