"""The kernel table of an NVIDIA GPU: what it holds for, its cases, and its making.

The cases are those of decoders that are exported for CUDA: the runtime's own operators, in float16, with
codes of 8 bits and less. Tested with the CPU as the device; not run on a GPU yet.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from ... import __version__
from ...errors import BundleError, InputError, MissingDependency, UnknownName
from ...runtime.session.session import PROVIDERS, onnxruntime, require_provider
from ...terminal.progress import Progress
from ..probe import Gpu, first_gpu, read_gpus
from .cases import Case, Done, cases, families_of
from .chain import NEAR_BYTES
from .gpu_timing import FAR_BYTES, MOST_NODES, DeviceChain
from .node_kinds import Fed, NodeKind
from .operation import in_float16
from .table import HERE, Fixed, KernelTable, Key, Reading, now, tables_of, write_table

CUDA = "cuda"
LIMIT_S = 45.0
_SECONDS, _PASSES = 0.005, 5
_OPERATORS = {
    *("MatMulNBits", "FusedMatMul", "GroupQueryAttention", "Gather"),
    *("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "LayerNormalization"),
    *("Add", "Mul", "QuickGelu", "Gelu", "FastGelu", "BiasGelu"),
}
# Of an attention: query, cache, lengths and rotary tables. What the CPU's has beside them is left out.
_ATTENTION_INPUTS = 9


def require_timed(provider: str) -> None:
    """Refuse a provider that no table can be made of."""
    if provider not in PROVIDERS:
        raise UnknownName("provider", provider, PROVIDERS)
    if provider != CUDA:
        raise InputError(
            f"there is no kernel table of {provider}",
            why="it fuses whole graphs, which times of single operators say nothing of",
            fix=f"measure the bundle itself: edgepress profile BUNDLE --provider {provider}",
        )


def gpu_key(provider: str) -> Key:
    """What a table of this machine's first GPU holds for."""
    require_timed(provider)
    require_provider(provider)
    gpu = _gpu()
    return Key(
        processor=_ascii(gpu.name),
        flags=[_ascii(f"driver {gpu.driver or 'unknown'}")],
        runtime=str(onnxruntime().__version__),
        provider=provider,
        kernels="none",
    )


def _gpu() -> Gpu:
    """The one that CUDA takes; raises what :func:`gpu_key` does."""
    gpus = read_gpus()
    if not gpus:
        raise MissingDependency(
            "no NVIDIA GPU is here", why="nvidia-smi is not there, or shows none", fix="see: edgepress doctor"
        )
    found = first_gpu(gpus)
    if found is None:
        raise InputError(
            "several kinds of GPUs are here, and which of them CUDA counts first is not certain",
            why=f"nvidia-smi shows {', '.join(one.name for one in gpus)}",
            fix="set CUDA_DEVICE_ORDER=PCI_BUS_ID, and CUDA_VISIBLE_DEVICES to the number of one",
        )
    return found


def _ascii(text: str) -> str:
    return "".join(one for one in text if " " <= one <= "~")[:200]


def gpu_table_path(key: Key) -> Path:
    """Apart from the processor's."""
    return tables_of(HERE, key.provider) / f"{key.digest}.json"


def gpu_cases() -> list[Case]:
    """What a table of a GPU measures; its caches are beyond what a case fills, so that near and far differ
    less than on a processor.
    """
    return [
        Case(_half(case.kind), case.reach)
        for case in cases()
        if case.kind.domain != "edgepress" and case.kind.op in _OPERATORS and _is_float(case.kind)
    ]


def _is_float(kind: NodeKind) -> bool:
    """Whether its cache, where it has one, is of floats."""
    return all(fed is None or fed.role != "cache" or fed.dtype == "float32" for fed in kind.inputs)


def _half(kind: NodeKind) -> NodeKind:
    """The node in float16: activations, norms, scales and cache."""
    inputs = kind.inputs[:_ATTENTION_INPUTS] if kind.op == "GroupQueryAttention" else kind.inputs
    return replace(kind, inputs=tuple(map(_half_input, inputs)), operation=in_float16(kind.operation))


def _half_input(fed: Fed | None) -> Fed | None:
    return replace(fed, dtype="float16") if fed is not None and fed.dtype == "float32" else fed


def measure_gpu(key: Key, path: Path, progress: Progress, *, limit_s: float = LIMIT_S) -> KernelTable:
    """Time the cases with the provider of ``key`` for at most ``limit_s`` seconds, and write the table."""
    begun, done, failed = time.monotonic(), Done(), ""
    every = gpu_cases()
    folder = tempfile.TemporaryDirectory(prefix="edgepress-kernels-")
    with folder as name, progress.task("measuring the GPU's kernels", len(every)) as task:
        try:
            fixed = _fixed(every, key.provider, Path(name))
        except BundleError as error:
            raise BundleError(f"no operator could be timed with {key.provider}", why=error.why) from error
        for index, case in enumerate(every):
            if time.monotonic() - begun > limit_s:
                break
            try:
                chain = DeviceChain(case.kind, key.provider, Path(name), far=case.reach == "far")
                taken = chain.time(seconds=_SECONDS, passes=_PASSES)
                times = [max((one - fixed.run) / chain.nodes, 1e-9) for one in (median(taken), min(taken))]
                done[index, 1] = (times[0], times[1])
            except BundleError as error:
                failed = failed or f"{case.kind.op}: {error.why}"
            task.advance(detail=case.kind.op)
    if not done:
        raise BundleError(f"no operator could be timed with {key.provider}", why=failed)
    table = KernelTable(
        schema="edgepress.kernel-table/1",
        key=key,
        machine=HERE,
        tool=f"edgepress {__version__}",
        created_utc=now(),
        took=time.monotonic() - begun,
        busy_percent=None,
        complete=len(done) == len(every),
        reach_bytes=FAR_BYTES,
        fixed=[fixed],
        bandwidth=_readings(done, every),
        families=families_of(done, every),
    )
    write_table(path, table)
    return table


def _fixed(every: list[Case], provider: str, folder: Path) -> Fixed:
    """What a run and a node cost beside the kernels: one and many of the smallest, which hardly compute."""
    kind = min((case.kind for case in every), key=lambda kind: kind.operation.read + kind.operation.moved)
    chains = [DeviceChain(kind, provider, folder, far=False, nodes=nodes) for nodes in (1, MOST_NODES)]
    one, many = (min(chain.time(seconds=_SECONDS, passes=_PASSES)) for chain in chains)
    node = max((many - one) / max(MOST_NODES - 1, 1), 1e-9)
    return Fixed(threads=1, run=max(one - node, 1e-9), value=1e-9, node=node, call=1e-9)


def _readings(done: Done, every: list[Case]) -> list[Reading]:
    """The fastest that weights were read, near and far."""
    best: dict[str, float] = {}
    for (index, _), (seconds, _) in done.items():
        case = every[index]
        best[case.reach] = max(best.get(case.reach, 1.0), case.kind.operation.read / seconds)
    sizes = {"near": NEAR_BYTES, "far": FAR_BYTES}
    return [
        Reading(threads=1, working_set=size, bytes_per_second=best[reach])
        for reach, size in sizes.items()
        if reach in best
    ]
