"""The pages of :mod:`.planned_and_taken`: what was planned beside what was taken, and how both grow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..study.page import write_table
from .planned_cases import CASES, COMMAND, RECIPES, SHAPES, SHORT, SMALL, TEXT, VERBS, Taken
from .planned_growth import write_growth

# What a case took, and its plan: JSON of `--dry-run`, empty where the verb has none.
Line = tuple[Taken, dict[str, Any]]


def _gigabytes(size: float | None) -> str:
    return f"{size / 1e9:.3g}" if size else "–"


def _beside(measured: float, plan: float | None) -> str:
    if not plan:
        return f"{measured:.3g} / –"
    return f"{measured:.3g} / {plan:.3g} ({measured / plan:.2f})"


def row(taken: Taken, plan: dict[str, Any]) -> list[str]:
    """A line of the table: what was measured, what was planned, and the ratio of the two."""
    disk = plan.get("disk")
    return [
        taken.model,
        taken.case,
        _beside(taken.peak / 1e9, plan.get("peak_memory", 0) / 1e9),
        _beside(taken.cpu_seconds, plan.get("seconds")),
        f"{taken.wall_seconds:.0f}" if taken.wall_seconds else "–",
        f"{_gigabytes(taken.disk)} / {_gigabytes(disk)}",
        _gigabytes(taken.written),
    ]


def write_pages(lines: Sequence[Line], results: Path) -> None:
    """The tables and plots of all finished cases."""
    small = [line for line in lines if line[0].model == SMALL]
    _write(
        results / "plan-accuracy.md",
        "How good a plan is",
        "The plan of every pass against what it takes",
        small,
    )
    large = [line for line in lines if line[0].model != SMALL]
    title = "Peak memory, time and disk of every verb"
    _write(results / "large-model.md", "A model larger than memory", title, large)
    write_growth([taken for taken, _ in large], results)
    parts = [taken for taken, _ in lines if taken.parts and taken.model != SMALL]
    if parts:
        kinds = list(parts[0].parts)
        rows = [
            [one.model, *(f"{one.parts[kind]:.0f}" for kind in kinds), f"{_rest(one):.0f}"] for one in parts
        ]
        write_table(
            results / "large-model.md",
            "Where the processor time of rtn goes",
            COMMAND,
            ["model", *(f"{kind}, CPU s" for kind in kinds), "start and the rest, CPU s"],
            rows,
            ["The exact KL: 1,024 tokens go through the original and through the rounded model."],
        )


def _rest(taken: Taken) -> float:
    return taken.cpu_seconds - sum(taken.parts.values())


def _write(path: Path, page: str, title: str, lines: Sequence[Line]) -> None:
    """A table with what it is of."""
    models = {
        name: f"{name}: Llama, random bfloat16 weights, {size.hidden} hidden, {size.ffn} in the MLP, "
        f"{size.blocks} blocks, vocabulary 49,152; {_text(name)} of Wikipedia where a pass reads text."
        for name, size in SHAPES.items()
        if any(taken.model == name for taken, _ in lines)
    }
    cases = [case for case in CASES if any(taken.case == case for taken, _ in lines)]
    write_table(
        path,
        title,
        COMMAND,
        ["model", "case", "peak GB / plan", "CPU s / plan", "wall s", "disk GB / plan", "written GB"],
        [row(*line) for line in lines],
        [
            *models.values(),
            f"Hard limit: {'; '.join(sorted({taken.limit for taken, _ in lines}))}. One thread.",
            "Peak: ru_maxrss of the process, pages of mapped files included. A plan's time is a range, from "
            "half to twice its seconds; CPU time is longer where others share the processors.",
            "Disk: the largest growth of the work directory while it ran, temporary files and output.",
            *(
                f"{case}: "
                + (
                    f"`edgepress {' '.join(VERBS[case])}`"
                    if case in VERBS
                    else f"`edgepress compress`, passes `{RECIPES[case]}`"
                )
                for case in cases
            ),
        ],
        page=page,
    )


def _text(model: str) -> str:
    samples, length = TEXT.get(model) or SHORT
    return f"{samples} × {length} tokens" + ("" if model in TEXT else " (gptq 16 × 512)")
