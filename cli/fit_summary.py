"""What ``edgepress fit`` says of a plan, and of what it found."""

from typing import Any

from ..terminal.progress import time_in_words


def plan_text(planned: dict[str, Any]) -> str:
    from ..fit.quantities import DISK

    sizes = f"{DISK.shown(planned['smallest'])} to {DISK.shown(planned['largest'])}"
    lines = [
        f"Plan of fit for {planned['model']}: {', '.join(planned['budgets'])}",
        f"  space    {planned['units']} units with {planned['options']} options, {sizes} (estimates)",
    ]
    if planned["cuts"]:
        lines.append(
            f"  cuts     {planned['cuts']} further options have fewer heads, channels or blocks: down to "
            f"{DISK.shown(planned['smallest_cut'])}"
        )
    if not planned["losses_known"]:
        lines.append(
            f"  result   its {planned['judged']} is predicted once a run has measured the candidates"
        )
    elif not planned["feasible"]:
        lines.append("  result   none is predicted to keep the budgets; a first trial may show otherwise")
    else:
        lines.append(
            f"  result   {_sized(planned, planned['predicted'])}: an estimate from candidates that were "
            "measured one by one"
        )
        lines += [f"  front    {_sized(planned, one)} (estimate)" for one in planned["front"]]
    if planned.get("cut"):
        lines.append(f"  cut      predicted to be better: {planned['cut']['line']}")
        lines.append(
            f"  cut      {_sized(planned, planned['cut']['predicted'])}, before any of it was measured"
        )
    for name, value in planned.get("compress_seconds", {}).items():
        lines.append(f"  time     about {time_in_words(value)} to compress once by {name} (estimate)")
    if planned.get("compress_seconds"):
        lines.append("  time     exports, proofs and measurements of trials are not counted")
    hours = planned["hours"]
    lines.append(f"  time     no trial begins after {hours:g} hour{'s' * (hours != 1)}")
    return "\n".join(lines)


def summary_text(target: str, found: dict[str, Any]) -> str:
    lines = [
        f"{target}: {found['model']}, {_delivered(found)}",
        f"  keeps {', '.join(found['budgets'])}, as measured",
    ]
    for trial in found["trials"]:
        sizes = ", measured ".join(_sized(found, trial[name]) for name in ("predicted", "measured"))
        missed = f": misses {', '.join(trial['misses'])}" if trial["misses"] else ""
        lines.append(f"  trial {trial['number']}, {trial['method']}: predicted {sizes}{missed}")
    lines += [f"  no more: {one}" for one in found["why_no_more"]]
    lines += [f"  cut first: {one}" for one in found["cut"]]
    lines += [
        f"  solved to within {100 * found['gap']:.2g} % of the least",
        "  bits by layer, block 0 to the last:",
    ]
    lines += [f"    {line}" for line in found["bits"]]
    lines += [f"  {line}" for line in found["prices"]]
    lines.append(f"  again, in {target}: {' '.join(found['repeat'])}")
    return "\n".join(lines)


def _delivered(found: dict[str, Any]) -> str:
    """Size, and the figures of quality with what they are of."""
    held_out, others = found["held_out"], len(found["held_out_trials"]) - 1
    if not held_out:
        return f"{_sized(found, found['measured'])} on the part that it was chosen by"
    disk = f"disk {_shown('disk', found['measured']['disk'])}; {_figures(held_out)}"
    if not others:
        return f"{disk} on the part that no choice was made on"
    return (
        f"{disk} on a part that refused {others} better trials, so that it took part in the choice: "
        "edgepress validate measures on others"
    )


def _sized(found: dict[str, Any], values: dict[str, Any]) -> str:
    """Size and what is judged in words."""
    judged = found["judged"]
    return f"disk {_shown('disk', values['disk'])}, {judged} {_shown(judged, values[judged])}"


def _figures(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {_shown(name, value)}" for name, value in values.items())


def _shown(name: str, value: float) -> str:
    from ..fit.quantities import quantity_of

    return quantity_of(name).shown(value)
