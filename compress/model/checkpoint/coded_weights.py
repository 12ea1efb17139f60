"""Weights that other tools have quantized: a checkpoint's ``quantization_config`` names the form, and each
weight of it is read as floats from the tensors that it is stored in, or as codes where it is on a grid that
edgepress has.

The reader shows such a weight under its plain name (``X.weight``), so that nothing further on knows about the
form; one at a time is in memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from .... import plugins
from ....errors import CheckpointError, UnknownName
from ....files.storage import read_json
from ...numbers.qtensor import QTensor
from ...numbers.scheme import Scheme
from .header import TensorEntry
from .policy import inside, refuse_code

FORMS = f"{__package__}.stored_forms"
# Files beside config.json in which auto-gptq, AutoAWQ and optimum-quanto keep their settings, with other
# names for some.
_BESIDE = {"quantize_config.json": "gptq", "quant_config.json": "awq", "quanto_qmap.json": "quanto"}
# By form, parts of a linear that no other stores, where a tool writes no settings at all: hqq's own writer.
_BY_PARTS = {"hqq": ("W_q", "scale", "zero", "packing")}
_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
_FLOAT_BITS = 16
_PLAIN = frozenset({"mxfp4"})  # makes floats of them where there are no kernels
_LARGEST = 1 << 31  # weights of one matrix: more than any model has
Read = Callable[[str], Tensor]
# What the headers of the files say beside their tensors, and the shapes of the model's linears.
Notes = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class CodedWeight:
    """A matrix ``[out, in]`` stored in ``parts``, tensors by their full names.

    ``bits`` are those of a code. ``dequantized`` gives it as float32; ``scheme`` is the one that has its
    grid, or None where none has, found without reading the codes, and ``codes`` the weight in it. They get a
    function that reads a stored tensor.
    """

    shape: tuple[int, int]
    parts: tuple[str, ...]
    bits: int
    dequantized: Callable[[Read], Tensor]
    scheme: Callable[[Read], Scheme | None] = field(default=lambda read: None)
    codes: Callable[[Scheme, Read], QTensor] | None = None

    def __post_init__(self) -> None:
        if prod(self.shape) > _LARGEST:
            raise CheckpointError(f"{self.parts[0]} says that it is of a matrix of {list(self.shape)}")


class StoredForm(Protocol):
    """How one tool stores quantized linears."""

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight] | None:
        """The weights that are stored so, by module, in a checkpoint that holds ``tensors``; ``read`` gives a
        small one of those. The settings have :data:`Notes` under ``__metadata__`` and, by module,
        ``__linears__``. None where edgepress reads
        such a checkpoint without help.

        Raises:
            CheckpointError: parts that are missing or do not fit, or a variant that is not read.
        """

    def described(self, settings: Mapping[str, Any]) -> str:
        """What people call it: ``GPTQ, groups of 128``."""


@dataclass(frozen=True)
class CodedWeights:
    """Those of a checkpoint: by module, and what the plan says of them (``4 bits (GPTQ, groups of 128)``);
    ``packaged``: transformers opens them with the packages of their own form only.
    """

    by_module: Mapping[str, CodedWeight] = field(default_factory=dict)
    described: str = ""
    packaged: bool = True

    def quantized(self) -> list[str]:
        """The modules whose weights are codes, and not floats in parts."""
        return [module for module, weight in self.by_module.items() if weight.bits < _FLOAT_BITS]


def coded_weights(
    directory: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorEntry],
    read: Read,
    notes: Mapping[str, Notes],
) -> CodedWeights:
    """What other tools quantized in the checkpoint ``directory``, which holds ``tensors``; ``notes`` are
    added to the settings.
    """
    settings = _settings(directory, config, tensors)
    if settings is None:
        return CodedWeights()
    method = settings.get("quant_method")
    if not isinstance(method, str) or method.replace("-", "_") not in plugins.names(FORMS):
        return _unknown(method, tensors)
    form: StoredForm = plugins.load(FORMS, method, "form of quantized weights").FORM
    found = form.weights({**settings, **notes}, tensors, read)
    if not found:
        return CodedWeights()
    bits = " and ".join(map(str, sorted({weight.bits for weight in found.values()})))
    return CodedWeights(found, f"{bits} bits ({form.described(settings)})", method not in _PLAIN)


def _unknown(method: object, tensors: Mapping[str, TensorEntry]) -> CodedWeights:
    # Some name a method for what they are rounded to as they are opened (BitNet), and hold plain floats.
    if all(entry.dtype in _FLOATS for entry in tensors.values() if len(entry.shape) > 1):
        return CodedWeights()
    known = [name.replace("_", "-") for name in plugins.names(FORMS)]
    raise UnknownName(
        "form of quantized weights",
        str(method)[:80],
        known,
        fix="start from the model as it was before it was quantized; edgepress reads " + ", ".join(known),
    )


def _settings(
    directory: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorEntry]
) -> Mapping[str, Any] | None:
    """``quantization_config``, or what older tools wrote beside it, or what the names of ``tensors`` say;
    None where there is none of these.
    """
    settings = config.get("quantization_config")
    if settings is not None:
        if not isinstance(settings, dict):
            raise CheckpointError("config.json has a quantization_config that is no JSON object")
        return settings
    for name, method in _BESIDE.items():
        if (directory / name).is_file():
            found = read_json(inside(directory, name))
            if not isinstance(found, dict):
                raise CheckpointError(f"{directory / name} is not a JSON object")
            refuse_code(found, directory / name)
            return {"quant_method": method, **found}
    return _by_parts(tensors)


def _by_parts(tensors: Mapping[str, TensorEntry]) -> Mapping[str, Any] | None:
    for method, (first, *others) in _BY_PARTS.items():
        for name in tensors:
            module, _, last = name.rpartition(".")
            if last == first and all(f"{module}.{part}" in tensors for part in others):
                return {"quant_method": method}
    return None
