"""The pages of ``programs/planned_and_taken.py``: what was planned beside what it took, and how both grow."""

from collections.abc import Sequence
from pathlib import Path

from ..study.page import write_table
from .cases import (
    BLOCKS,
    CASES,
    COMMAND,
    RECIPES,
    SHAPES,
    SHORT,
    SHORTER,
    SMALL,
    TEXT,
    VERBS,
    Taken,
    shape_of,
)
from .gptq_floor import write_gptq
from .growth import write_growth
from .records import Record

LARGE = "large-model.md"


def _gigabytes(size: float | None) -> str:
    return f"{size / 1e9:.3g}" if size else "–"


def _beside(measured: float, plan: float | None) -> str:
    if not plan:
        return f"{measured:.3g} / –"
    return f"{measured:.3g} / {plan:.3g} ({measured / plan:.2f})"


def row(record: Record) -> list[str]:
    """A line of the table: what was measured, what was planned, and the ratio of the two."""
    taken, plan = record.taken, record.plan
    return [
        taken.model,
        taken.case,
        _beside(taken.peak / 1e9, plan.get("peak_memory", 0) / 1e9),
        _beside(taken.cpu_seconds, plan.get("seconds")),
        f"{taken.wall_seconds:.0f}" if taken.wall_seconds else "–",
        f"{_gigabytes(taken.disk)} / {_gigabytes(plan.get('disk'))}",
        _beside(taken.written / 1e9, plan.get("result_bytes", 0) / 1e9) if taken.written else "–",
    ]


def write_pages(records: Sequence[Record], results: Path) -> None:
    """The tables and plots of all finished cases."""
    small = [one for one in records if one.taken.model == SMALL]
    for processor in dict.fromkeys(one.processor for one in small):
        title = f"The plan of every pass against what it takes: {processor}"
        page = "How good a plan is"
        _write(
            results / "plan-accuracy.md", page, title, [one for one in small if one.processor == processor]
        )
    large = [one for one in records if one.taken.model != SMALL]
    title = "Peak memory, time and disk of every verb"
    _write(results / LARGE, "A model larger than memory", title, large)
    _write_carried_on(results / LARGE, large)
    write_growth(_whole(large), results)
    timed = [one.taken for one in large if one.taken.parts]
    _write_parts(results / LARGE, [one for one in timed if one.case == "rtn"])
    write_gptq(results / LARGE, [one for one in timed if one.case == "gptq"])


def _whole(records: Sequence[Record]) -> list[Taken]:
    """Every case of every whole model: what was measured, else what is carried on from some of its blocks."""
    found: dict[tuple[str, str], Taken] = {}
    for record in records:
        taken = record.carried_on if BLOCKS in record.taken.model else record.taken
        if taken is not None:
            found.setdefault((taken.model, taken.case), taken)
    return [found[model, case] for model in SHAPES for case in CASES if (model, case) in found]


def _write_carried_on(path: Path, records: Sequence[Record]) -> None:
    """The table of models that were measured with some of their blocks."""
    rows = []
    for record in records:
        taken, plan, whole = record.carried_on, record.plan, record.whole
        if taken is not None:
            rows.append(
                [
                    taken.case,
                    record.taken.model,
                    taken.model,
                    f"{(whole['peak_memory'] - plan['peak_memory']) / 1e9:.2f}",
                    f"{taken.peak / 1e9:.3g} / {whole['peak_memory'] / 1e9:.3g}",
                    f"{whole['seconds'] / plan['seconds']:.1f}",
                    f"{taken.cpu_seconds:,.0f} / {whole['seconds']:,.0f}",
                    f"{taken.disk / 1e9:.3g} / {whole['disk'] / 1e9:.3g}",
                ]
            )
    if rows:
        write_table(
            path,
            "What all blocks would take where some were measured",
            COMMAND,
            [
                *("case", "measured", "of", "more memory by depth, GB", "peak GB / plan", "times"),
                *("CPU s / plan", "disk GB / plan"),
            ],
            rows,
            [
                "**Extrapolated, not measured**: memory and disk are what was measured and what the plan of "
                "all blocks has more than that of these; time was measured, and is times the ratio of both.",
                "By depth grow, of the memory: scales that learn and the states that wait for the way back "
                "(tune), nothing of the other passes; of the disk: the result, its parts, and states.",
            ],
        )


def _write_parts(path: Path, taken: Sequence[Taken]) -> None:
    """Where the time of rounding goes."""
    if taken:
        kinds = list(taken[0].parts)
        write_table(
            path,
            "Where the processor time of rtn goes",
            COMMAND,
            ["model", *(f"{kind}, CPU s" for kind in kinds), "start and the rest, CPU s"],
            [
                [one.model, *(f"{one.parts[kind]:.0f}" for kind in kinds), f"{_rest(one):.0f}"]
                for one in taken
            ],
            ["The exact KL: 1,024 tokens go through the original and through the rounded model."],
        )


def _rest(taken: Taken) -> float:
    return taken.cpu_seconds - sum(taken.parts.values())


def _write(path: Path, page: str, title: str, records: Sequence[Record]) -> None:
    """A table with what it is of; none of nothing."""
    if not records:
        return
    models = [_described(name) for name in dict.fromkeys(one.taken.model for one in records)]
    cases = [case for case in CASES if any(one.taken.case == case for one in records)]
    days = ", ".join(sorted({one.date for one in records}))
    machines = sorted({one.machine for one in records})
    write_table(
        path,
        title,
        COMMAND,
        ["model", "case", "peak GB / plan", "CPU s / plan", "wall s", "disk GB / plan", "written GB / plan"],
        [row(one) for one in records],
        [
            *models,
            f"Hard limit: {'; '.join(sorted({one.taken.limit for one in records}))}. One thread.",
            f"Measured {days} on: {'; '.join(machines)}.",
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
                + (f"; of some blocks `{SHORTER[case]}`" if case in SHORTER else "")
                for case in cases
            ),
        ],
        page=page,
        measured_on=machines[0] if len(machines) == 1 else "",
    )


def _described(model: str) -> str:
    size, whole = shape_of(model), shape_of(model.partition(BLOCKS)[0])
    blocks = f"{size.blocks} of its {whole.blocks}" if BLOCKS in model else f"{size.blocks}"
    return (
        f"{model}: Llama, random bfloat16 weights, {size.hidden} hidden, {size.ffn} in the MLP, {blocks} "
        f"blocks, vocabulary 49,152; {_text(model)} of Wikipedia where a pass reads text."
    )


def _text(model: str) -> str:
    samples, length = TEXT.get(model) or SHORT
    return f"{samples} × {length} tokens" + ("" if model in TEXT else " (gptq 16 × 512)")
