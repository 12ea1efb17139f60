"""``predict``: a subject on a target by its name, from the best that is known of it: the kernel table that
was measured there with the same provider, or the data sheet.
"""

from collections.abc import Callable
from dataclasses import replace

from ...errors import InputError, MissingDependency, UnknownName
from ...runtime.session.session import PROVIDERS
from ..kernel_table.plan import this_key
from ..kernel_table.submission import submissions
from ..kernel_table.table import HERE, KernelTable, Key, machines, newest_table
from ..own_devices import HERE as WORDS
from ..own_devices import own_devices
from ..target import Target, target, target_names
from .data_sheet import MODELLED, modelled_joules, predict_from_sheet
from .from_table import TablePrediction
from .prediction import Prediction
from .run import Run
from .subject import PredictedWork, Subject

CPU = "cpu"
# By the rate that they follow from.
_JOULES = {
    "decode_tps": "decode_j_per_token",
    "sentences_per_second": "batch_j_per_sentence",
    "images_per_second": "batch_j_per_image",
}
_CPU_ALONE = "its operators run on CPUs alone: one for this provider is another bundle (export --provider)"


def predict(
    subject: Subject,
    name: str,
    work: PredictedWork,
    *,
    threads: int | None = None,
    provider: str | None = None,
    path: str = "BUNDLE",
) -> Prediction:
    """What ``subject`` will take on the machine ``name``.

    Args:
        threads: with which a processor computes; all that the table has when None.
        provider: what runs it there; by default the GPU of a target that is one, else the processor.
        path: of the bundle, for the command that measures the same.
    """
    work.check(subject)
    if provider not in (None, *PROVIDERS):
        raise UnknownName("provider", str(provider), PROVIDERS)
    options = work.options(subject)
    if name in WORDS or name in own_devices() or name in machines():
        machine, provider = HERE if name in WORDS else name, provider or CPU
        table = table_of(machine, provider)
        on = "" if machine == HERE else f" --on {machine}"
        return _from_table(subject, table, work, threads, f"edgepress profile {path}{on} {options}")
    if name.lower().replace("_", "-") not in target_names():
        raise UnknownName("target", name, {HERE, *own_devices(), *machines(), *target_names()})
    known = target(name)
    provider = _provider_of(known, provider)
    there = f"edgepress devices add NAME --ssh USER@HOST && edgepress profile {path} --on NAME {options}"
    every = submissions(known.name).items()
    if provider != CPU and _own_operators(subject):
        subject = replace(subject, notes=(*subject.notes, _CPU_ALONE))
    sent = next(((file, one) for file, one in every if one.table.key.provider == provider), None)
    if sent is None:
        return predict_from_sheet(subject, known, work, f"{there}{_said(provider)}", provider)
    file, one = sent
    table = one.table.model_copy(update={"machine": known.name})
    found = _from_table(subject, table, work, threads, there, counted=False)
    note = (
        f"the table was measured on {one.machine} by {one.sender} (submissions/{file}), not on your machine"
    )
    rate = next(one for one in found.quantities if one.name in _JOULES)
    joules = modelled_joules(_JOULES[rate.name], known, rate.value, rate.band)
    return replace(found, quantities=(*found.quantities, joules), notes=(note, MODELLED, *found.notes))


def _from_table(
    subject: Subject,
    table: KernelTable,
    work: PredictedWork,
    threads: int | None,
    check: str,
    *,
    counted: bool = True,
) -> Prediction:
    """``check`` is completed by what the table is of; its threads are ``counted`` where it is the user's."""
    provider = table.key.provider
    if provider != CPU:
        return TablePrediction(subject, table, 1).predict(work, f"{check}{_said(provider)}")
    count = max(table.threads, default=1) if threads is None else threads
    with_threads = f" --threads {count}" if counted else ""
    return TablePrediction(subject, table, count).predict(work, f"{check}{with_threads}")


def _own_operators(subject: Subject) -> bool:
    return any(one.op in ("QuantizedProduct", "IntegerProduct") for one in subject.does(Run(1)).counts)


def _said(provider: str) -> str:
    return "" if provider == CPU else f" --provider {provider}"


def _provider_of(known: Target, wanted: str | None) -> str:
    """The provider that a target's figures are of."""
    on_gpu = known.kind.endswith("gpu")
    provider = wanted or ("cuda" if on_gpu else CPU)
    if (on_gpu and provider == CPU) or PROVIDERS[provider] not in known.providers.names:
        raise InputError(
            f"{known.name} cannot be predicted with {provider}",
            why=f"its figures are of {'its GPU' if on_gpu else ', '.join(known.providers.names)}",
            fix="leave --provider out, or name another target: edgepress devices list",
        )
    return provider


def foretold(
    subject: Callable[[], Subject],
    work: PredictedWork,
    threads: int | None = None,
    machine: str = HERE,
    provider: str = CPU,
) -> Prediction | None:
    """What the table of ``machine`` says; None where it has none, or none for such a subject."""
    try:
        table_of(machine, provider)
        return predict(subject(), machine, work, threads=threads, provider=provider)
    # No table, one of another runtime, without these threads or an operator, no graph, no such provider here.
    except (InputError, MissingDependency):
        return None


def table_of(machine: str, provider: str = CPU) -> KernelTable:
    """The newest table of ``provider`` on ``machine``."""
    with_it = _said(provider)
    whose = "this machine" if machine == HERE else machine
    if provider not in (CPU, "cuda"):
        raise InputError(
            f"there is no kernel table of {provider}, which fuses whole graphs",
            fix=f"measure the bundle itself: edgepress profile BUNDLE{with_it}; or predict a target of "
            "`edgepress devices list` from its data sheet",
        )
    table = newest_table(machine, provider)
    again = "edgepress devices measure" + ("" if machine == HERE else f" {machine}") + with_it
    if table is None:
        of = "" if provider == CPU else f" of {provider}"
        raise InputError(f"{whose} has no kernel table{of} yet", fix=f"make it, in a minute: {again}")
    if machine == HERE and table.key != (now := _key_now(provider)):
        differs = [name for name in type(now).model_fields if getattr(now, name) != getattr(table.key, name)]
        raise InputError(
            "the kernel table of this machine is of another state of it",
            why=f"it differs in {', '.join(differs)}",
            fix=f"make it again, in a minute: {again}",
        )
    return table


def _key_now(provider: str) -> Key:
    if provider == CPU:
        return this_key()
    from ..kernel_table.gpu import gpu_key  # only here: it needs the runtime and its numbers

    return gpu_key(provider)
