"""GPTQ's processor time by kinds of work, beside the floor of its arithmetic."""

from collections.abc import Sequence
from pathlib import Path

from ..makers.random_llama import Size
from ..study.page import write_table
from .cases import COMMAND, TEXT, Taken, shape_of

FORWARD, GRAMS = "forward passes", "Grams"
FACTORS, COLUMNS = "factors of the damped Grams", "recursion over the columns"
GRIDS, LEFT = "grids searched under the Hessian", "output error of each layer"
OTHERS = (GRIDS, LEFT)
RATE = "multiply-adds a second"
SIDE = 4096  # of the product that the rate is measured on
PROBED = 1024  # tokens that go through the original and through the result too, for the exact KL of the step


def floors(size: Size, tokens: int) -> dict[str, float]:
    """The multiply-adds that nobody can leave out, by kind, for ``tokens`` of calibration text.

    Two forward passes without attention, the first of which ends before the down projection, and two of the
    :data:`PROBED` tokens; of each Gram ``[n, n]`` one half; a Cholesky factor and its inverse, n³ / 6 each;
    and each column of a matrix with so many rows changed by all before it, rows × n² / 2.
    """
    keys = 64 * size.kv_heads
    groups = [  # inputs, and the rows of the matrices that read them
        *((size.hidden, size.hidden + 2 * keys), (size.hidden, size.hidden)),
        *((size.hidden, 2 * size.ffn), (size.ffn, size.hidden)),
    ]
    return {
        FORWARD: size.blocks
        * (
            2.0 * (tokens + PROBED) * sum(wide * rows for wide, rows in groups)
            - tokens * size.ffn * size.hidden
        ),
        GRAMS: size.blocks * tokens * sum(wide**2 / 2 for wide, _ in groups),
        FACTORS: size.blocks * sum(wide**3 / 3 for wide, _ in groups),
        COLUMNS: size.blocks * sum(rows * wide**2 / 2 for wide, rows in groups),
    }


def write_gptq(path: Path, taken: Sequence[Taken]) -> None:
    """The section of all runs of GPTQ whose parts are known."""
    rows = []
    for one in taken:
        samples, length = TEXT["gptq"]
        least = {
            kind: work / one.parts[RATE]
            for kind, work in floors(shape_of(one.model), samples * length).items()
        }
        whole = sum(one.parts[kind] for kind in (*least, *OTHERS))
        bottom = sum(least.values())
        rows.append(
            [
                one.model,
                *(f"{one.parts[kind]:.0f} / {floor:.0f}" for kind, floor in least.items()),
                *(f"{one.parts[kind]:.0f}" for kind in OTHERS),
                f"{whole:.0f} / {bottom:.0f} ({whole / bottom:.2f})",
                f"{2e-9 * one.parts[RATE]:.0f}",
                f"{one.cpu_seconds:.0f}",
            ]
        )
    if rows:
        write_table(
            path,
            "GPTQ beside the floor of its arithmetic",
            COMMAND,
            [
                *("model", *(f"{kind}, CPU s / floor" for kind in least), *OTHERS),
                *("all of these / floor", "GFLOP/s of products", "whole process, CPU s"),
            ],
            rows,
            [
                "Floor: the multiply-adds that nobody can leave out, at the rate of torch's float32 products "
                f"of {SIDE:,} × {SIDE:,} matrices in the same process: two forward passes without "
                f"attention, the first without the down projection, and two of the {PROBED:,} tokens of the "
                "exact KL; half of each Gram, n³ / 3 for a factor and its inverse, and rows × n² / 2 "
                "for the columns.",
                "The whole process has start, text, the head's part of the exact KL, reading and writing "
                "besides.",
            ],
        )
