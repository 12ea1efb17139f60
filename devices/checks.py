"""What ``doctor`` looks at: the installation and the machine. Each finding is ok, warn or fail, with its fix.

Nothing heavy is imported and nothing is fetched: packages are read from their metadata.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ..errors import MissingDependency
from ..files.storage import cache_directory
from ..runtime.kernels.library import instructions
from ..runtime.session.cuda_libraries import load_cuda
from ..runtime.session.provider_errors import CUDA_LIBRARIES
from ..runtime.session.session import PROVIDERS
from .energy import Meter, NoMeter, find_meters
from .probe import ONNXRUNTIMES, Gpu, OnnxRuntime, installed, read_gpus, read_limits, read_onnxruntime

CORE = (
    "click",
    "rich",
    "pydantic",
    "PyYAML",
    "jinja2",
    "numpy",
    "safetensors",
    "tokenizers",
    "psutil",
)
COMPRESS = (
    "torch",
    "transformers",
    "huggingface-hub",
    "accelerate",
    "gguf",
    "onnx",
    "onnx-ir",
    "compressed-tensors",
)
# Extras of single verbs and options, each with the packages by which it is recognized.
OPTIONAL = {
    "fit": ("scipy",),
    "images": ("pillow",),
    "search": ("optuna",),
    "ray": ("ray",),
    "sign": ("model-signing", "pyopenssl"),
    "slices": ("wordfreq",),
    "genai": ("onnxruntime-genai",),
    "energy": ("nvidia-ml-py",),
    "soc": ("zeus",),
}
OLDEST_PYTHON = (3, 11)
SMALL_DISK = 5e9

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One look at one thing."""

    check: str
    status: Status
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def examine(*, output: Path | None = None) -> list[Finding]:
    """Every finding, in a fixed order; ``output`` is a directory on the disk that results will go to."""
    gpus, runtime = read_gpus(), read_onnxruntime()
    return [
        python_version(sys.version_info[:2]),
        packages("core", installed(*CORE), CORE, fix="pip install edgepress", needed=True),
        packages(
            "compress", installed(*COMPRESS), COMPRESS, fix='pip install "edgepress[compress]"', needed=False
        ),
        extras({name: bool(installed(*named)) for name, named in OPTIONAL.items()}),
        onnxruntime_packages(installed(*ONNXRUNTIMES)),
        own_operators(),
        onnxruntime_providers(runtime, installed(*ONNXRUNTIMES), gpus),
        *cuda_libraries(runtime, gpus),
        torch_device(installed("torch").get("torch") if find_spec("torch") else None, gpus),
        thread_budget_finding(),
        writable("cache", cache_directory()),
        free_disk("disk", output or Path.cwd()),
        *(energy_counter(*found) for found in find_meters(gpu=bool(gpus)).items()),
    ]


def python_version(version: Sequence[int]) -> Finding:
    """The interpreter is new enough."""
    shown = ".".join(map(str, version))
    if tuple(version) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Finding("python", "fail", f"Python {shown}", f"use Python {oldest} or later")
    return Finding("python", "ok", f"Python {shown}")


def packages(group: str, found: dict[str, str], wanted: Sequence[str], *, fix: str, needed: bool) -> Finding:
    """The packages of one extra, by the versions ``found``."""
    missing = [name for name in wanted if name not in found]
    detail = ", ".join(f"{name} {version}" for name, version in found.items())
    if not missing:
        return Finding(group, "ok", detail)
    return Finding(group, "fail" if needed else "warn", f"missing: {', '.join(missing)}", fix)


def extras(found: dict[str, bool]) -> Finding:
    """Which extras are installed; none of them is needed by a verb that a user has not chosen."""
    there, missing = (", ".join(name for name in found if found[name] is known) for known in (True, False))
    fix = (
        f'for one of those that are not: pip install "edgepress[{missing.partition(",")[0]}]"'
        if missing
        else ""
    )
    return Finding("extras", "ok", f"installed: {there or 'none'}; not installed: {missing or 'none'}", fix)


def own_operators() -> Finding:
    """Whether bundles with edgepress's own operators run here, and with which instructions."""
    try:
        found = instructions()
    except MissingDependency as error:
        return Finding("operators", "fail", error.what, error.fix)
    if found == "none":
        detail = "edgepress's own are not built or switched off: only bundles of standard operators run"
        return Finding("operators", "warn", detail, "install a C compiler, then edgepress again")
    return Finding("operators", "ok", f"edgepress's own, with {found} instructions")


def onnxruntime_packages(found: dict[str, str]) -> Finding:
    """Exactly one distribution may own the import name ``onnxruntime``."""
    detail = ", ".join(f"{name} {version}" for name, version in found.items())
    if not found:
        return Finding(
            "onnxruntime",
            "warn",
            "not installed: bundles cannot run here",
            'pip install "edgepress[cpu]", or "edgepress[gpu]" with an NVIDIA GPU',
        )
    if len(found) > 1:
        return Finding(
            "onnxruntime",
            "fail",
            f"{detail} share one import name, and each overwrote files of the other",
            f"pip uninstall -y {' '.join(found)}; then install one of them",
        )
    return Finding("onnxruntime", "ok", detail)


def onnxruntime_providers(runtime: OnnxRuntime | None, found: dict[str, str], gpus: Sequence[Gpu]) -> Finding:
    """The runtime imports and offers what the machine has."""
    if runtime is None:
        if not found:
            return Finding("providers", "warn", "none, without ONNX Runtime")
        return Finding(
            "providers",
            "fail",
            "ONNX Runtime is installed and does not import",
            "pip install --force-reinstall onnxruntime",
        )
    ours = [name for name, theirs in PROVIDERS.items() if theirs in runtime.providers]
    detail = f"{', '.join(runtime.providers)}; --provider {', '.join(ours) or 'none'}"
    if gpus and "CUDAExecutionProvider" not in runtime.providers:
        fix = 'pip uninstall -y onnxruntime; pip install "edgepress[gpu]"'
        return Finding("providers", "warn", f"{detail}; the GPU is not among them", fix)
    return Finding("providers", "ok", detail)


def cuda_libraries(runtime: OnnxRuntime | None, gpus: Sequence[Gpu]) -> list[Finding]:
    """Of a runtime with CUDA beside a GPU: the libraries that its wheel does not bring are there."""
    if runtime is None or not gpus or "CUDAExecutionProvider" not in runtime.providers:
        return []
    import onnxruntime

    said = load_cuda(onnxruntime)
    if said:
        missing = ", ".join(re.findall(r"Failed to load ([^\s:]+)", said)) or said
        return [Finding("cuda", "warn", f"ONNX Runtime cannot use the GPU without {missing}", CUDA_LIBRARIES)]
    return [Finding("cuda", "ok", "ONNX Runtime finds CUDA's libraries")]


def torch_device(version: str | None, gpus: Sequence[Gpu]) -> Finding:
    """What compression can run on, from torch's version string and the GPUs; torch is not imported."""
    names = ", ".join(gpu.name for gpu in gpus) or "no NVIDIA GPU"
    if version is None:
        return Finding(
            "torch",
            "warn",
            f"not installed: this machine can run bundles, not make them ({names})",
            'pip install "edgepress[compress]"',
        )
    if gpus and "+cpu" in version:
        fix = "install a CUDA build of torch, or compress with --device cpu"
        return Finding("torch", "warn", f"torch {version} cannot use {names}", fix)
    return Finding("torch", "ok", f"torch {version}, {names}")


def thread_budget_finding() -> Finding:
    """How many threads everything here will use, and why."""
    limits = read_limits()
    reasons = [f"affinity {limits.affinity}"] if limits.affinity else []
    reasons += [f"quota {limits.cpu_quota:g}"] if limits.cpu_quota else []
    reasons += ["in a container"] if limits.container else []
    return Finding("threads", "ok", f"{limits.threads} ({', '.join(reasons) or 'physical cores'})")


def writable(check: str, folder: Path) -> Finding:
    """Files can be made in ``folder``, which need not exist yet."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Finding(check, "ok", f"{folder} can be written")
    return Finding(
        check,
        "fail",
        f"{folder} cannot be written",
        "set EDGEPRESS_CACHE to a directory of your own",
    )


def free_disk(check: str, folder: Path) -> Finding:
    """There is room for a model and its results."""
    free = shutil.disk_usage(folder).free
    if free < SMALL_DISK:
        return Finding(check, "warn", f"{free / 1e9:.1f} GB free at {folder}", "free some space")
    return Finding(check, "ok", f"{free / 1e9:.1f} GB free at {folder}")


def energy_counter(device: str, found: Meter | NoMeter) -> Finding:
    """``profile`` can measure the energy of ``device``; where no counter exists there is nothing to mend."""
    fix = found.fix if isinstance(found, NoMeter) else ""
    check = "energy" if device == "cpu" else f"energy {device}"
    return Finding(check, "warn" if fix else "ok", str(found), fix)
