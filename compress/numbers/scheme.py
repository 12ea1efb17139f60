"""``Scheme``: how the weights and activations of a layer are stored, and which runtime computes with it.

Names follow compressed-tensors' presets: ``W4A16`` is 4-bit weights with untouched activations,
``W4A16_ASYM`` has zero points, ``W8A8`` adds dynamic per-token int8 activations, ``W8A8_STATIC`` those of one
scale found in calibration. A group size is appended after a dash: ``W4A16-g64``. ``FP8_DYNAMIC``, ``FP8``,
``NVFP4``, ``NVFP4A16``, ``MXFP4`` and ``MXFP4A16`` are floats, whose groups are part of the format
(:mod:`.qtensor`), as are those of GGUF's ``Q2_K`` to ``Q6_K`` and ``IQ4_NL`` (:mod:`.block_types`).
``T2A16``, ``T3A16`` and ``T4A16`` are words of a trellis in the basis of rotated inputs (:mod:`.trellis`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from ...errors import UnknownName
from .scheme_names import canonical, way_out

Format = Literal[
    "int", "fp8", "mxfp4", "nvfp4", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "t2", "t3", "t4"
]

E4M3_LARGEST, E2M1_LARGEST = 448.0, 6.0
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (16, 32, 64, 128, 256)
DEFAULT_GROUP_SIZE = 128
# Of GGUF's types bits, group size, bits of a weight with all that it has, and the least and largest code.
GGUF: dict[Format, tuple[int, int, float, tuple[int, int]]] = {
    "q2_k": (2, 16, 2.625, (0, 3)),
    "q3_k": (3, 16, 3.4375, (-4, 3)),
    "q4_k": (4, 32, 4.5, (0, 15)),
    "q5_k": (5, 32, 5.5, (0, 31)),
    "q6_k": (6, 16, 6.5625, (-32, 31)),
    "iq4_nl": (4, 32, 4.5, (-127, 113)),
}
SUPER_BLOCK = 256  # inputs, which share a unit in all of them but IQ4_NL
TRELLIS: dict[Format, int] = {"t2": 2, "t3": 3, "t4": 4}  # bits of a symbol
WORD_SIDE = 8  # rows, and columns, of its words
# Bits and group size of the formats that are not integers with any groups.
_OWN_GROUPS: dict[Format, tuple[int, int | None]] = {
    "fp8": (8, None),
    "mxfp4": (4, 32),
    "nvfp4": (4, 16),
    **{name: (bits, size) for name, (bits, size, *_) in GGUF.items()},
    **{name: (bits, None) for name, bits in TRELLIS.items()},
}
# Format and kind of activations by the names of the schemes.
_OWN_NAMES: dict[str, tuple[Format, Any]] = {
    "FP8_DYNAMIC": ("fp8", "token"),
    "FP8": ("fp8", "tensor"),
    "NVFP4": ("nvfp4", "group"),
    "NVFP4A16": ("nvfp4", None),
    "MXFP4": ("mxfp4", "group"),
    "MXFP4A16": ("mxfp4", None),
    **{name.upper(): (name, None) for name in GGUF},
    **{f"T{bits}A16": (name, None) for name, bits in TRELLIS.items()},
}
STATIC = "W8A8_STATIC"
PRESETS = (
    *(f"W{bits}A16" for bits in BITS),
    *(f"W{bits}A16_ASYM" for bits in BITS),
    *("W8A8", STATIC),
    *_OWN_NAMES,
)

_NAME = re.compile(
    r"W(?P<bits>[234568])A(?P<act>16|8)(?P<asym>_ASYM)?(?:-g(?P<group>\d+)|-(?P<channel>channel))?$"
)


class Scheme(BaseModel):
    """Bits and granularity of a quantized linear.

    ``group_size`` counts input channels that share a scale; ``None`` is one scale per output channel.
    ``activations`` have the weights' format and one scale per ``"token"``, taken as they come; per
    ``"tensor"``, found in calibration; per ``"group"`` of a token; or are not quantized: ``None``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: Literal[2, 3, 4, 5, 6, 8]
    group_size: int | None = Field(
        DEFAULT_GROUP_SIZE, description="input channels per scale; null is per channel"
    )
    symmetric: bool = True
    activations: Literal["token", "tensor", "group"] | None = None
    format: Format = Field("int", description="of the numbers: int, fp8, a trellis …")

    @field_validator("group_size")
    @classmethod
    def _known_group(cls, value: int | None) -> int | None:
        if value is not None and (value < 16 or value > 256):
            raise ValueError(f"group_size {value} is outside 16–256; use null for one scale per channel")
        return value

    @model_validator(mode="after")
    def _one_that_exists(self) -> Self:
        if self.format == "int":
            if self.bits not in BITS:
                raise ValueError("integers have 2, 3, 4, 5, 6 or 8 bits")
            if self.activations == "group":
                raise ValueError("integer activations have one scale per token, or one for all of them")
            known = (self.bits, self.group_size, self.symmetric) == (8, None, True)
            if self.activations == "tensor" and not known:
                raise ValueError("static int8 activations go with symmetric int8 weights per channel")
        elif (self.bits, self.group_size) != _OWN_GROUPS[self.format] or not self.symmetric:
            raise ValueError(f"{self.format} has its own bits and groups and no zero points")
        elif (self.format, self.activations) not in _OWN_NAMES.values():
            raise ValueError(f"{self.format} does not go with activations per {self.activations}")
        return self

    @classmethod
    def parse(cls, name: str) -> Scheme:
        """The scheme called ``name``, in any case, or by a name of other tools (:mod:`.scheme_names`)."""
        given, name = name, canonical(name)
        if name in _OWN_NAMES:
            number_format, activations = _OWN_NAMES[name]
            bits, size = _OWN_GROUPS[number_format]
            return cls.model_validate(
                {"bits": bits, "group_size": size, "activations": activations, "format": number_format}
            )
        if name == STATIC:
            return cls(bits=8, group_size=None, activations="tensor")
        match = _NAME.match(name)
        if match is None or (match["act"] == "8" and match["bits"] != "8"):
            raise UnknownName("scheme", given, PRESETS, fix=way_out(given))
        group: int | None = int(match["group"]) if match["group"] else DEFAULT_GROUP_SIZE
        if match["channel"] or (match["act"] == "8" and not match["group"]):
            group = None
        return cls(
            bits=int(match["bits"]),
            group_size=group,
            symmetric=match["asym"] is None,
            activations="token" if match["act"] == "8" else None,
        )

    @staticmethod
    def names_its_groups(name: str) -> bool:
        """Whether ``name`` says which inputs share a scale, as ``W4A16-g64`` does and ``W4A16`` does not."""
        match = _NAME.match(canonical(name))
        return match is None or bool(match["group"] or match["channel"] or match["act"] == "8")

    @property
    def name(self) -> str:
        """The preset name with its group: ``W4A16-g64``; :meth:`parse` reads it back."""
        for name, kind in _OWN_NAMES.items():
            if kind == (self.format, self.activations):
                return name
        if self.activations == "tensor":
            return STATIC
        head = f"W{self.bits}A{8 if self.activations else 16}{'' if self.symmetric else '_ASYM'}"
        if self.group_size is None:
            return head if self.activations else f"{head}-channel"
        return f"{head}-g{self.group_size}"

    @property
    def of_gguf(self) -> bool:
        """Whether it is a type of GGUF that no other form has (:mod:`.block_types`)."""
        return self.format in GGUF

    @property
    def of_trellis(self) -> bool:
        """Whether codes are symbols of a trellis' words (:mod:`.trellis`), which mean nothing one by one."""
        return self.format in TRELLIS

    @property
    def block(self) -> int:
        """Inputs that a row must have a multiple of; 1 for integers with one scale per channel."""
        if self.of_gguf and self.format != "iq4_nl":
            return SUPER_BLOCK
        if self.of_trellis:
            return WORD_SIDE
        return self.group_size or 1

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code, both inclusive; of a float format its last points, as codes."""
        if self.of_gguf:
            return GGUF[self.format][3]
        if self.of_trellis:
            return 0, (1 << self.bits) - 1
        if self.format != "int":
            largest = E4M3_LARGEST if self.format == "fp8" else 2 * E2M1_LARGEST
            return -int(largest), int(largest)
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1

    def groups(self, in_features: int) -> int:
        """Number of scales per output channel for ``in_features`` inputs (which the group must divide)."""
        return 1 if self.group_size is None else in_features // self.group_size

    @property
    def calibrated(self) -> bool:
        """Whether the scale of the activations is found in calibration."""
        return self.activations == "tensor" or (self.format == "nvfp4" and self.activations == "group")

    def bits_per_weight(self, in_features: int, scale_bits: int = 16) -> float:
        """Stored bits per weight with scales and zero points counted."""
        if self.of_gguf:
            return GGUF[self.format][2]
        scale_bits = 8 if self.format in ("mxfp4", "nvfp4") else scale_bits
        overhead = scale_bits + (0 if self.symmetric else self.bits)
        return self.bits + overhead * self.groups(in_features) / in_features


EMULATED = "emulated here, in float32"

_INTEGERS = "ONNX Runtime after `edgepress export`"
# By the name of the scheme; capability is CUDA's compute capability.
_SERVERS = {
    "FP8_DYNAMIC": "vLLM ≥ 0.5 on GPUs of capability ≥ 8.9 (Ada, Hopper, Blackwell)",
    "FP8": "vLLM ≥ 0.5 on GPUs of capability ≥ 8.9 (Ada, Hopper, Blackwell)",
    "NVFP4": "vLLM ≥ 0.9.1 on GPUs of capability ≥ 10 (Blackwell); on older ones with activations in 16 bits",
    "NVFP4A16": "vLLM ≥ 0.9 on GPUs of capability ≥ 8 (Ampere and later)",
    "MXFP4": "vLLM ≥ 0.14 on GPUs of capability ≥ 8; it may leave activations in 16 bits, and does below 10",
    "MXFP4A16": "vLLM ≥ 0.14 on GPUs of capability ≥ 8 (Ampere and later)",
}


def runs_on(schemes: Iterable[Scheme]) -> list[str]:
    """One line for each kind of scheme in ``schemes``: who executes it."""
    lines = []
    for scheme in sorted(set(schemes), key=lambda one: one.name):
        if scheme.format == "int":
            lines.append(f"integers: {_INTEGERS}")
        elif scheme.of_trellis:
            lines.append(f"{scheme.name}: edgepress's own operators after `edgepress export`")
        elif scheme.of_gguf:
            lines.append(f"{scheme.name}: llama.cpp after `edgepress export --format gguf`")
        else:
            lines.append(f"{scheme.name}: {_SERVERS[scheme.name]}; {EMULATED}")
    return list(dict.fromkeys(lines))


def _scheme(value: Any) -> Any:
    return Scheme.parse(value) if isinstance(value, str) else value


def _not_of_gguf(scheme: Scheme) -> Scheme:
    if scheme.of_gguf:
        raise ValueError(f"{scheme.name} is rounded by the passes k_quants and gptq")
    return scheme


def _code_by_code(scheme: Scheme) -> Scheme:
    if scheme.of_trellis:
        raise ValueError(f"{scheme.name} is rounded by the passes rtn and gptq")
    return scheme


def _of_gguf(scheme: Scheme) -> Scheme:
    if not scheme.of_gguf:
        raise ValueError(f"this pass is for {', '.join(name.upper() for name in GGUF)}")
    return scheme


def _integers(scheme: Scheme) -> Scheme:
    if scheme.format != "int" or scheme.calibrated:
        raise ValueError(
            f"this pass is for integer codes, inputs not static; {scheme.name} takes rtn or gptq"
        )
    return scheme


EverySchemeOption = Annotated[
    Scheme,
    BeforeValidator(_scheme, json_schema_input_type=str | dict[str, Any]),
    Field(description="a name such as W4A16-g64 or NVFP4, or {bits, group_size, symmetric, activations}"),
]
RoundedSchemeOption = Annotated[EverySchemeOption, AfterValidator(_not_of_gguf)]
AnySchemeOption = Annotated[RoundedSchemeOption, AfterValidator(_code_by_code)]
GgufSchemeOption = Annotated[EverySchemeOption, AfterValidator(_of_gguf)]
SchemeOption = Annotated[AnySchemeOption, AfterValidator(_integers)]
