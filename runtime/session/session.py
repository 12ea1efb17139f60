"""An ONNX Runtime session with nothing left to defaults that differ between machines.

Threads are explicit, spinning stays on (28 % of decode speed), int8 kernels are chosen for portable quantized
graphs, and a provider that is not there is an error, where the library would quietly use the CPU.
"""

import importlib
import mmap
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, MissingDependency, OutOfResource, UnknownName
from ...files.limits import address_space_limit, require_threads
from ...files.third_party_errors import memory_shortage
from ..kernels.library import library
from .cpu_features import asks_itself, products_saturate
from .cuda_libraries import load_cuda
from .node_providers import RECORDED, misplaced
from .provider_errors import not_installed, not_started
from .threads import thread_budget

# Address space that its library takes when it is loaded: 50 MB of 1.32, and half as much again.
_ROOM = 75 << 20

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# What takes the nodes that a provider leaves, before the CPU does.
BEHIND = {"tensorrt": ("CUDAExecutionProvider",)}
# CUDA's norm of a sum adds up squares in float16 by itself: of small states in wide models too few.
_SETTINGS = {"CUDAExecutionProvider": {"enable_skip_layer_norm_strict_mode": "1"}}
# Where buffers for a provider lie, if not in the CPU's memory.
_DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}

# Threads spin from one token to the next and no longer: left to itself ONNX Runtime spins on, and takes the
# cores from whatever comes then.
_CONFIG = {
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "1000",
    "session.prepack.enable_parallel": "1",
    "session.qdq_matmulnbits_accuracy_level": "4",
}
# On a CPU whose products saturate this one gives 8-bit weights by blocks a scalar zero point, which ONNX
# Runtime 1.32 then refuses in DequantizeLinear. Graphs with integer products have no such node.
_DISABLED = ["QDQS8ToU8Transformer"]
_FATAL = 4
_RAISED = [
    "Fail",
    "InvalidArgument",
    "NoSuchFile",
    "NoModel",
    "EngineError",
    "RuntimeException",
    "InvalidProtobuf",
    "NotImplemented",
    "InvalidGraph",
    "EPFail",
    "NotFound",
    "ModelLoaded",
]


def onnxruntime() -> Any:
    """The onnxruntime module."""
    _require_room()
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        if shortage := memory_shortage(error):
            raise shortage from None
        raise MissingDependency(
            "running a bundle needs ONNX Runtime, which is not installed",
            why=str(error),
            fix='install it with: pip install "edgepress[cpu]"',
        ) from None


def _require_room() -> None:
    """Under a limit that it does not fit in the library may load for ever: it is not tried then."""
    limit, status = address_space_limit(), Path("/proc/self/statm")
    if limit is None or "onnxruntime" in sys.modules or not status.exists():
        return
    used = int(status.read_text(encoding="ascii").split()[0]) * mmap.PAGESIZE
    if limit - used < _ROOM:
        raise OutOfResource(
            f"ONNX Runtime takes {_ROOM >> 20} MB to load, and {max(0, limit - used) >> 20} MB are left",
            why=f"the limit of address space is {limit >> 20} MB",
            fix="raise the limit (ulimit -v)",
        )


@cache
def _library_errors() -> tuple[type[Exception], ...]:
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = [getattr(state, name) for name in _RAISED if hasattr(state, name)]
    return (*own, ValueError, RuntimeError, TypeError, MemoryError)


@contextmanager
def graph_errors_are_typed(what: str) -> Iterator[None]:
    """Turn whatever ONNX Runtime raises below into a :class:`BundleError` that begins with ``what``, or into
    :class:`OutOfResource` where it says that memory ran out.
    """
    try:
        yield
    # Bad bytes in the library's own messages surface as UnicodeDecodeError, wrong feeds as ValueError or
    # RuntimeError.
    except _library_errors() as error:
        if shortage := memory_shortage(error):
            raise shortage from error
        raise BundleError(what, why=str(error).strip()[:800]) from error


def device_of(provider: str) -> str:
    """Where the key/value cache lies for ``provider``, in ONNX Runtime's words."""
    return _DEVICES.get(provider, "cpu")


def open_session(
    graph: Path,
    *,
    threads: int | None = None,
    provider: str = "cpu",
    profile: Path | None = None,
    config: Mapping[str, str] | None = None,
) -> Any:
    """An ``InferenceSession`` over ``graph``; its ``misplaced`` is a sentence about nodes that do not run on
    the provider, or "".

    Args:
        graph: the ONNX file.
        threads: for one operator; the machine's budget when None. Operators run one after another.
        provider: a key of :data:`PROVIDERS`.
        profile: path prefix for ONNX Runtime's per-operator trace; ``session.end_profiling()`` closes it.
        config: further session configuration entries.
    """
    return prepared_session(graph, threads=threads, provider=provider, profile=profile, config=config)()


def prepared_session(
    graph: Path,
    *,
    threads: int | None = None,
    provider: str = "cpu",
    profile: Path | None = None,
    config: Mapping[str, str] | None = None,
) -> Callable[[], Any]:
    """What makes the session of :func:`open_session`: native code, while which other threads run."""
    runtime = onnxruntime()
    name = require_provider(provider)
    require_threads(threads)
    recorded = {} if provider == "cpu" else RECORDED
    saturates = products_saturate() and not asks_itself(graph)
    exact = {"session.x64quantprecision": str(int(saturates))}
    entries = {**_CONFIG, **exact, **recorded, **(config or {})}
    options = _options(runtime, threads or thread_budget(), entries)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    behind = [other for other in BEHIND.get(provider, ()) if other in runtime.get_available_providers()]
    said = load_cuda(runtime) if device_of(provider) == "cuda" else ""

    def opened() -> Any:
        with graph_errors_are_typed(f"ONNX Runtime {runtime.__version__} cannot load {graph}"):
            session = _session(runtime, str(graph), options, [name, *behind], provider)
        if session.get_providers()[0] != name:
            raise not_started(provider, f"it answered with {session.get_providers()[0]}. {said}".strip())
        session.misplaced = "" if provider == "cpu" else misplaced(session, (name, *behind))
        return session

    return opened


def _session(runtime: Any, graph: str, options: Any, names: list[str], provider: str) -> Any:
    """The session, or the library's error: by itself it prints that, and takes another provider."""
    try:
        return runtime.InferenceSession(
            graph,
            sess_options=options,
            providers=[(name, _SETTINGS[name]) if name in _SETTINGS else name for name in names],
            disabled_optimizers=_DISABLED,
            enable_fallback=0,
        )
    except RuntimeError as error:  # what is wrong with a graph is of the library's own classes
        if provider == "cpu" or memory_shortage(error):
            raise
        raise not_started(provider, str(error).strip()[-800:]) from error


def owned_value(array: NDArray[Any]) -> Any:
    """A value of ONNX Runtime with a copy of ``array``: one that shares its memory does not keep it alive."""
    value = onnxruntime().OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type)
    value.update_inplace(np.ascontiguousarray(array))
    return value


def _options(runtime: Any, threads: int, config: Mapping[str, str]) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _FATAL
    operators = library()
    if operators is not None:
        with graph_errors_are_typed(f"the library of operators {operators} cannot be loaded"):
            options.register_custom_ops_library(str(operators))
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    return options


def require_provider(provider: str) -> str:
    """ONNX Runtime's name of ``provider``, a key of :data:`PROVIDERS`."""
    if provider not in PROVIDERS:
        raise UnknownName("provider", provider, PROVIDERS)
    name, there = PROVIDERS[provider], onnxruntime().get_available_providers()
    if name not in there:
        raise not_installed(provider, f"installed: {', '.join(there)}")
    return name
