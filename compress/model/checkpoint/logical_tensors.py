"""The tensors that a checkpoint stands for: a linear has one weight, ``X.weight``, in whatever parts a
quantized one is stored.
"""

from __future__ import annotations

from collections.abc import Mapping

from ....errors import CheckpointError
from ...numbers.scheme import Scheme
from ..anatomy import Anatomy
from ..kv_scheme import is_scale
from .packed_codes import row_inputs
from .reader import CheckpointReader
from .stated_schemes import is_transposed, schemes_of
from .stored_tensors import BLOCKS, PARTS

_QUANTIZED_PARTS = frozenset(
    {"weight_packed", "weight_scale", "weight_shape", "weight_zero_point", BLOCKS, *PARTS}
)
# A quantized linear of compressed-tensors or edgepress has one of them, the reader knows of others; the last
# is GPTQ's and AWQ's, where no config says so.
_HAVE_CODES = ("weight_scale", BLOCKS, "qweight")


def coded_linears(reader: CheckpointReader) -> dict[str, Scheme]:
    """The scheme of each linear that compressed-tensors or edgepress has quantized."""
    codes = (name.rpartition(".") for name in reader.shapes)
    quantized = {module: part for module, _, part in codes if part in _HAVE_CODES}
    schemes = schemes_of(reader.config, list(quantized)) if quantized else {}
    for module, scheme in schemes.items():
        if scheme.of_gguf != (quantized[module] == BLOCKS):
            raise CheckpointError(f"{module} is stored in another form than its scheme {scheme.name}")
    return schemes


def coded_by_others(reader: CheckpointReader, anatomy: Anatomy) -> dict[str, Scheme]:
    """The scheme of each linear that another tool has quantized, on grids that a scheme has."""
    coded = reader.coded.by_module
    found = {linear.name: reader.scheme(linear.name) for linear in anatomy.linears() if linear.name in coded}
    return {name: scheme for name, scheme in found.items() if scheme is not None}


def stored_parts(module: str) -> list[str]:
    """The names of all that a quantized linear may be stored in."""
    return [f"{module}.{part}" for part in ("weight", *_QUANTIZED_PARTS)]


def logical_shapes(
    reader: CheckpointReader, schemes: Mapping[str, Scheme], transposed: tuple[str, ...], *, caches: bool
) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor under its plain name. Dense ones whose names end as one of ``transposed`` are
    stored ``[in, out]``; a checkpoint that ``caches`` in integers has scales for that, which are left out.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    turned = is_transposed(reader.config)
    for name, shape in reader.shapes.items():
        if caches and is_scale(name):
            continue
        module, _, part = name.rpartition(".")
        if module not in schemes or part not in _QUANTIZED_PARTS:
            dense = module not in schemes and name.endswith(transposed)
            shapes[name] = shape[::-1] if dense else shape
        elif part == BLOCKS:
            shapes[f"{module}.weight"] = (shape[0], row_inputs(schemes[module], shape[1]))
        elif part == "weight_packed" and schemes[module].format != "int":
            shapes[f"{module}.weight"] = (shape[0], 2 * shape[1])
        elif part == "weight_shape":
            sizes = tuple(int(size) for size in reader.read([name])[name])
            shapes[f"{module}.weight"] = sizes[::-1] if turned else sizes
    return shapes
