"""The tensors that a checkpoint stands for: a linear has one weight, ``X.weight``, in whatever parts a
quantized one is stored.

The schemes that a ``quantization_config`` of compressed-tensors states, by the names of modules.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from ....errors import CheckpointError
from ...numbers.scheme import GGUF, TRELLIS, Scheme
from ..anatomy import Anatomy
from ..kv_scheme import is_scale
from .packed_codes import row_inputs, word_inputs
from .quantization_config import (
    CONV1D,
    GGUF_FORM,
    STOPS,
    TRELLIS_FORM,
    float_activations_of,
)
from .reader import CheckpointReader
from .stored_tensors import BLOCKS, PARTS, WORDS

_QUANTIZED_PARTS = frozenset(
    {"weight_packed", "weight_scale", "weight_shape", "weight_zero_point", BLOCKS, WORDS, *PARTS}
)
# A quantized linear of compressed-tensors or edgepress has one of them, the reader knows of others; the last
# is GPTQ's and AWQ's, where no config says so.
_HAVE_CODES = ("weight_scale", BLOCKS, "qweight")
# More than this is no pattern of layer names, and some patterns take years on one that does not match.
_LONGEST_PATTERN, _MOST_REPETITIONS = 200, 3
_TRELLIS = frozenset(f"{name.upper()}A16" for name in TRELLIS)
_REPEATED_GROUP = re.compile(r"\)[*+{]")


def coded_linears(reader: CheckpointReader) -> dict[str, Scheme]:
    """The scheme of each linear that compressed-tensors or edgepress has quantized."""
    codes = (name.rpartition(".") for name in reader.shapes)
    quantized = {module: part for module, _, part in codes if part in _HAVE_CODES}
    schemes = schemes_of(reader.config, list(quantized)) if quantized else {}
    for module, scheme in schemes.items():
        if scheme.of_gguf != (quantized[module] == BLOCKS) or scheme.of_trellis != (
            f"{module}.{WORDS}" in reader.shapes
        ):
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
        elif part in (BLOCKS, WORDS):
            shapes[f"{module}.weight"] = _shape_of_rows(reader, module, part, schemes[module])
        elif part == "weight_packed" and schemes[module].format != "int":
            shapes[f"{module}.weight"] = (shape[0], 2 * shape[1])
        elif part == "weight_shape":
            sizes = tuple(int(size) for size in reader.read([name])[name])
            shapes[f"{module}.weight"] = sizes[::-1] if turned else sizes
    return shapes


def _shape_of_rows(reader: CheckpointReader, module: str, part: str, scheme: Scheme) -> tuple[int, int]:
    """``[out, in]`` of a weight whose rows are blocks, or whose rows of words have a scale each."""
    scales = f"{module}.weight_scale"
    shape = reader.shapes[f"{module}.{part}"]
    rows = reader.shapes.get(scales, ()) if part == WORDS else shape
    if len(shape) != 2 or len(rows) != 2:
        raise CheckpointError(
            f"{module} has {part} {list(shape)} and scales {list(rows)}, not one for each row"
        )
    return rows[0], (word_inputs if part == WORDS else row_inputs)(scheme, shape[1])


def schemes_of(config: Mapping[str, Any], quantized: list[str]) -> dict[str, Scheme]:
    """The scheme of every module in ``quantized``, from a checkpoint's ``quantization_config``."""
    settings = config.get("quantization_config")
    if not isinstance(settings, dict) or settings.get("quant_method") != "compressed-tensors":
        raise CheckpointError(
            "the checkpoint holds quantized weights and no quantization_config that says how",
            fix="start from the model as it was before it was quantized",
        )
    schemes: dict[str, Scheme] = {}
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        targets = group.get("targets") if isinstance(group, dict) else None
        if not isinstance(targets, list) or not isinstance(group.get("weights"), dict):
            raise CheckpointError(
                f"quantization_config has a group without weights or targets: {group!r:.200}"
            )
        scheme = _scheme_of(group)
        for target in targets:
            if target in STOPS:
                continue
            for name in filter(_target(target), quantized):
                schemes.setdefault(name, scheme)
    missing = [name for name in quantized if name not in schemes]
    if missing:
        raise CheckpointError(
            f"no group of quantization_config covers {missing[0]} (and {len(missing) - 1} more)"
        )
    return schemes


def group_of(settings: Mapping[str, Any], module: str) -> Mapping[str, Any]:
    """The first group of a ``quantization_config`` that means ``module``; empty where none does."""
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        targets = group.get("targets") if isinstance(group, dict) else None
        for target in targets if isinstance(targets, list) else ():
            if target not in STOPS and _target(target)(module):
                return group if isinstance(group.get("weights"), dict) else {}
    return {}


def is_transposed(config: Mapping[str, Any]) -> bool:
    """Whether the quantized tensors of a checkpoint with this ``config.json`` are stored ``[in, out]``."""
    settings = config.get("quantization_config")
    groups = settings.get("config_groups") if isinstance(settings, dict) else None
    found = (
        [group for group in groups.values() if isinstance(group, dict)] if isinstance(groups, dict) else []
    )
    return any(isinstance(group.get("targets"), list) and CONV1D in group["targets"] for group in found)


def _target(target: object) -> Callable[[str], bool]:
    """Whether a module of a name is one that the entry ``target`` of a group means."""
    if not isinstance(target, str):
        raise CheckpointError(f"quantization_config has the target {target!r:.80}, which is no text")
    if not target.startswith("re:"):
        return lambda name: target in ("Linear", CONV1D, name)
    pattern = target[3:]
    repetitions = sum(pattern.count(sign) for sign in "*+{")
    if len(pattern) > _LONGEST_PATTERN or repetitions > _MOST_REPETITIONS or _REPEATED_GROUP.search(pattern):
        raise CheckpointError(f"quantization_config has a target too long or too deep: {pattern!r:.80}")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise CheckpointError(f"quantization_config has the target {target!r:.80}", why=str(error)) from None
    return lambda name: compiled.match(name) is not None


def _scheme_of(group: Mapping[str, Any]) -> Scheme:
    weights, activations = group["weights"], group.get("input_activations")
    form = str(group.get("format"))
    if form.startswith(GGUF_FORM) and form.removeprefix(GGUF_FORM).lower() in GGUF:
        return Scheme.parse(form.removeprefix(GGUF_FORM))
    if form.startswith(TRELLIS_FORM) and form.removeprefix(TRELLIS_FORM) in _TRELLIS:
        return Scheme.parse(form.removeprefix(TRELLIS_FORM))
    if not isinstance(activations, dict | None):
        raise CheckpointError(f"quantization_config has input_activations {activations!r:.80}")
    if weights.get("type") == "float":
        found = _float_scheme_of(weights, activations)
        if found is not None:
            return found
    strategy, group_size = weights.get("strategy"), weights.get("group_size")
    block = weights.get("block_structure")
    if CONV1D in group["targets"] and strategy == "block" and isinstance(block, list) and block[1:] == [1]:
        strategy, group_size = "group", block[0]
    known = weights.get("type", "int") == "int" and strategy in ("group", "channel")
    if activations is not None:
        kinds = (("token", True), ("tensor", False))
        kind = (activations.get("strategy"), activations.get("dynamic"))
        eight = activations.get("num_bits") == 8 and activations.get("type", "int") == "int"
        known = known and eight and kind in kinds
    if not known:
        raise CheckpointError(
            f"this compressed-tensors scheme is not supported: {dict(group)}",
            fix="integer weights by group or channel, with int8 activations per token or static per tensor "
            "or without, and FP8, MXFP4 and NVFP4 as compressed-tensors' presets have them, are",
        )
    try:
        return Scheme(
            bits=weights.get("num_bits", 0),
            group_size=group_size if strategy == "group" else None,
            symmetric=weights.get("symmetric", True),
            activations=activations["strategy"] if activations else None,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"quantization_config has a scheme that is none: {first['msg']}") from None


def _float_scheme_of(weights: Mapping[str, Any], activations: Mapping[str, Any] | None) -> Scheme | None:
    """The scheme that a group of quantization_config describes; None when edgepress has no such scheme."""
    kind = (weights.get("num_bits"), weights.get("strategy"), weights.get("group_size"))
    kinds: list[tuple[tuple[int, str, int | None], tuple[str, ...]]] = [
        ((8, "channel", None), ("FP8_DYNAMIC", "FP8")),
        ((8, "tensor", None), ("FP8_DYNAMIC", "FP8")),
        ((4, "group", 32), ("MXFP4A16", "MXFP4")),
        ((4, "tensor_group", 16), ("NVFP4A16", "NVFP4")),
    ]
    for name in (name for known, names in kinds if known == kind for name in names):
        scheme = Scheme.parse(name)
        wanted = float_activations_of(scheme)
        if wanted is None or activations is None:
            same = wanted is activations
        else:
            same = all(activations.get(key) == wanted[key] for key in ("num_bits", "strategy", "dynamic"))
        if same:
            return scheme
    return None
