"""``Target``: what a machine has. Memory, bandwidth, peaks by dtype, power, cores, execution providers.

Targets choose schemes and predict; they are never mixed with measurements of a model. Each number
carries where it comes from and how far to trust it. A target is a file ``targets/NAME.yaml``; adding
one is adding the file. One that names a ``chipset`` takes from ``chipsets/NAME.yaml`` what it does not
say itself. A bandwidth that was measured (:mod:`.submission`) takes the place of a claimed one, and
says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InputError, UnknownName

FOLDER, CHIPSETS = (Path(__file__).parent / name for name in ("targets", "chipsets"))

Confidence = Literal["high", "medium", "low"]


class Fact(BaseModel):
    """Something claimed about a machine, with its evidence. A target's own evidence is the default of its
    facts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    confidence: Confidence
    note: str = ""


class Figure(Fact):
    """A number. ``up_to`` is the top of a range over the models sold under the name; ``value`` is its
    bottom.
    """

    value: float = Field(gt=0)
    up_to: float | None = None
    unit: Literal["GB", "GB/s", "W", "cores", "threads"]

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Figure:
        if self.up_to is not None and self.up_to <= self.value:
            raise ValueError(f"up_to {self.up_to} must be larger than value {self.value}")
        return self


class Peak(Fact):
    """A dense peak rate (no sparsity) of one compute unit for one dtype."""

    on: Literal["cpu", "gpu", "npu"]
    dtype: Literal["fp32", "bf16", "fp16", "fp8", "fp6", "fp4", "int8", "int4"]
    value: float = Field(gt=0)
    unit: Literal["TFLOPS", "TOPS"]


class Share(Fact):
    """Empirical: the part of the bandwidth at which kernels read weights when a token is decoded."""

    value: float = Field(gt=0, le=1)


class Isa(Fact):
    """The instructions for int8 and bf16 dot products that the CPU has, in the names Linux prints."""

    flags: tuple[str, ...]


class Providers(Fact):
    """ONNX Runtime execution providers that make sense here, best first. The CPU's exists everywhere."""

    names: tuple[str, ...] = Field(min_length=1)


class Target(BaseModel):
    """One machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    kind: Literal["server-gpu", "desktop-gpu", "laptop-gpu", "laptop", "board"]
    memory: Figure = Field(description="of the compute unit: VRAM of a GPU, RAM of a laptop")
    bandwidth: Figure
    power: Figure
    chipset: str | None = None
    share: Share | None = Field(None, description="of the bandwidth, where it was measured")
    cores: dict[Literal["performance", "efficiency", "low-power"], Figure] = Field(default_factory=dict)
    isa: Isa | None = None
    peaks: tuple[Peak, ...] = ()
    providers: Providers
    notes: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _evidence_is_inherited(cls, data: Any) -> Any:
        return _with_own_evidence(data) if isinstance(data, dict) else data

    def peak(self, dtype: str, *, on: str | None = None) -> Peak | None:
        """The highest peak for ``dtype``, of any compute unit or the one named; None when unknown."""
        found = [peak for peak in self.peaks if peak.dtype == dtype and on in (None, peak.on)]
        return max(found, key=lambda peak: peak.value, default=None)

    def decode_ceiling(self, bytes_per_token: float) -> float:
        """The most tokens per second at batch 1 that the fastest memory sold under the name allows.

        Each token reads ``bytes_per_token`` of weights once.
        """
        return (self.bandwidth.up_to or self.bandwidth.value) * 1e9 / bytes_per_token


def _read(path: Path) -> dict[str, Any]:
    from ..files.yaml_safe import load_yaml  # here alone: what measures on a device has no PyYAML

    data = load_yaml(path.read_text(encoding="utf-8"), source=path.name)
    if not isinstance(data, dict):
        raise InputError(f"{path} is not a target", why="a target is a mapping of keys to facts")
    return data


def _with_own_evidence(data: dict[str, Any]) -> dict[str, Any]:
    """Each fact with the file's own source and confidence, where it has none."""
    evidence: dict[str, Any] = {key: data[key] for key in ("source", "confidence") if key in data}
    rest = {key: value for key, value in data.items() if key not in evidence}
    return {key: _with_evidence(value, evidence) for key, value in rest.items()}


def _with_evidence(value: Any, evidence: dict[str, Any]) -> Any:
    """``value`` with the evidence filled in wherever a fact (a mapping with no mappings in it) lacks its
    own.
    """
    if isinstance(value, list):
        return [_with_evidence(item, evidence) for item in value]
    if not isinstance(value, dict):
        return value
    if any(isinstance(item, dict) for item in value.values()):
        return {key: _with_evidence(item, evidence) for key, item in value.items()}
    return {**evidence, **value}


def target_names(folder: Path = FOLDER) -> list[str]:
    """The known targets: the files of ``folder``."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def target(name: str, folder: Path = FOLDER) -> Target:
    """The target ``name``; underscores and dashes are the same, letter case is ignored."""
    known = target_names(folder)
    stem = name.lower().replace("_", "-")
    if stem not in known:
        raise UnknownName("target", name, known)
    path = folder / f"{stem}.yaml"
    data = _read(path)
    chipset = data.get("chipset")
    if isinstance(chipset, str):
        shared = CHIPSETS / f"{chipset}.yaml"
        if chipset != shared.stem or not shared.is_file():
            raise InputError(f"{path} is not a valid target", why=f"chipset: there is no {chipset[:80]!r}")
        data = _with_own_evidence(_read(shared)) | data
    try:
        return Target.model_validate({"name": stem, **data})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is not a valid target", why=f"{where}: {first['msg']}") from None
