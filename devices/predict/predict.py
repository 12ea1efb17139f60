"""``predict``: a subject on a target by its name, from the best that is known of it: the kernel table that
was measured there, or the data sheet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...errors import InputError, UnknownName
from ..kernel_table.kept import HERE, machines, newest_table
from ..kernel_table.measure import this_key
from ..kernel_table.submission import submissions
from ..kernel_table.table import KernelTable
from ..own_devices import HERE as WORDS
from ..own_devices import own_devices
from ..target import target, target_names
from .data_sheet import predict_from_sheet
from .from_table import TablePrediction
from .prediction import Prediction
from .subject import Subject
from .workload import PredictedWork


def predict(
    subject: Subject, name: str, work: PredictedWork, *, threads: int | None = None, path: str = "BUNDLE"
) -> Prediction:
    """What ``subject`` will take on the machine ``name``.

    Args:
        threads: with which it computes; all that the table has when None.
        path: of the bundle, for the command that measures the same.

    Raises:
        UnknownName: no such device or target. NotMeasured: the table lacks an operator, or these threads.
        InputError: the machine has no table, or one of another runtime; the model has no room for the work.
    """
    work.check(subject)
    options = work.options(subject)
    if name in WORDS or name in own_devices() or name in machines():
        machine = HERE if name in WORDS else name
        table = table_of(machine)
        count = max(table.threads, default=1) if threads is None else threads
        on = "" if machine == HERE else f" --on {machine}"
        check = f"edgepress profile {path}{on} {options} --threads {count}"
        return TablePrediction(subject, table, count).predict(work, check)
    if name.lower().replace("_", "-") not in target_names():
        raise UnknownName("target", name, {HERE, *own_devices(), *machines(), *target_names()})
    there = f"edgepress devices add NAME --ssh USER@HOST && edgepress profile {path} --on NAME {options}"
    known = target(name)
    sent = next(iter(submissions(known.name).items()), None)
    if sent is None:
        return predict_from_sheet(subject, known, work, there)
    file, one = sent
    table = one.table.model_copy(update={"machine": known.name})
    count = max(table.threads, default=1) if threads is None else threads
    found = TablePrediction(subject, table, count).predict(work, there)
    note = (
        f"the table was measured on {one.machine} by {one.sender} (submissions/{file}), not on your machine"
    )
    return replace(found, notes=(note, *found.notes))


def foretold(
    subject: Callable[[], Subject], work: PredictedWork, threads: int | None = None, machine: str = HERE
) -> Prediction | None:
    """What the table of ``machine`` says; None where it has none, or none for such a subject."""
    try:
        table_of(machine)
        return predict(subject(), machine, work, threads=threads)
    except InputError:  # no table, one of another runtime, without these threads or an operator, no graph
        return None


def table_of(machine: str) -> KernelTable:
    """The newest table of ``machine``.

    Raises:
        InputError: there is none, or that of this machine is of another processor, runtime or set of kernels.
    """
    table = newest_table(machine)
    again = "edgepress devices measure" + ("" if machine == HERE else f" {machine}")
    if table is None:
        whose = "this machine" if machine == HERE else machine
        raise InputError(f"{whose} has no kernel table yet", fix=f"make it, in a minute: {again}")
    if machine == HERE and table.key != (now := this_key()):
        differs = [name for name in type(now).model_fields if getattr(now, name) != getattr(table.key, name)]
        raise InputError(
            "the kernel table of this machine is of another state of it",
            why=f"it differs in {', '.join(differs)}",
            fix=f"make it again, in a minute: {again}",
        )
    return table
