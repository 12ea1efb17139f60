"""``quantization_config`` of a compressed-tensors checkpoint: in which form each scheme is stored, and what
the file says of it; :mod:`.logical_tensors` reads it.

Weight-only layers are ``pack-quantized`` (``weight_packed``, ``weight_scale``, ``weight_shape``,
``weight_zero_point``), W8A8 layers ``int-quantized`` (``weight`` int8, ``weight_scale``); a model that mixes
them is ``mixed-precision``.

Packed zero points are special: transformers 5.24 with compressed-tensors 0.20 reads them only when it
dequantizes while loading, with one scheme for the whole model and in the precision of the stored scale. So a
model of one asymmetric scheme asks for that in its config and stores float32 scales; beside other schemes,
asymmetric codes are ``int-quantized``, a byte each. Four-bit floats it unpacks to bfloat16, which float32
models cannot compute with, so that a model of one such scheme asks for the same. So does a model of one
packed scheme in a family whose linears transformers looks at while it opens them: packed ones have no weight.

So does GPT-2, whose linears transformers keeps as ``Conv1D``, ``[in, out]``: compressed-tensors has no such
modules, but what transformers (5.23 and later) dequantizes it stores wherever the name says. Tensors are
transposed then, and a group is a ``block`` of so many rows and one column. With several schemes, rounded
activations, 4-bit floats or zero points of channels that is not to be had. Where transformers would leave
random weights and only warn, the first target of a group is no regular expression, and its error says why.
So it is with types of GGUF and trellis grids, which compressed-tensors does not know.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ...numbers.scheme import Format, Scheme

PACKED, INTEGER, MIXED, DENSE = "pack-quantized", "int-quantized", "mixed-precision", "dense"
TRANSPOSED = "pack-quantized, transposed"  # compressed-tensors' own name for it is PACKED, and of this
UNPACKED = "pack-quantized, dequantized as it is opened"
CONV1D = "Conv1D"
# The errors begin with "bad character in group name" and go on with the words.
NEEDS_NEWER = "re:(?P<GPT-2 opens in transformers 5.23 or later>)"
NOT_THERE = "re:(?P<only edgepress opens this GPT-2>)"
EXPERTS = "re:(?P<only edgepress opens experts with such codes>)"
GGUF_BLOCKS = "re:(?P<only edgepress opens codes in types of GGUF>)"
TRELLIS_WORDS = "re:(?P<only edgepress opens the words of a trellis>)"
STOPS = (NEEDS_NEWER, NOT_THERE, EXPERTS, GGUF_BLOCKS, TRELLIS_WORDS)
GGUF_FORM, TRELLIS_FORM = "gguf-", "trellis-"
PUBLISHED = "mxfp4"  # of all experts of gpt-oss, and of nothing else: as it is published
_FLOAT_FORMS: dict[Format, str] = {
    "fp8": "float-quantized",
    "mxfp4": "mxfp4-pack-quantized",
    "nvfp4": "nvfp4-pack-quantized",
}
_DENSE = (_FLOAT_FORMS["mxfp4"], _FLOAT_FORMS["nvfp4"])


def forms(schemes: Iterable[Scheme], conv1d: bool = False, *, looked_at: bool = False) -> dict[Scheme, str]:
    """The compressed-tensors format of each scheme of a model that holds all of ``schemes``, in modules that
    are ``Conv1D`` or linears, whose weights transformers has ``looked_at`` when the model is open.
    """
    distinct = list(dict.fromkeys(schemes))
    alone = len(distinct) == 1
    found: dict[Scheme, str] = {}
    for scheme in distinct:
        packed = not scheme.activations and (scheme.symmetric or alone)
        own = f"{GGUF_FORM}{scheme.name}" if scheme.of_gguf else _FLOAT_FORMS.get(scheme.format)
        own = f"{TRELLIS_FORM}{scheme.name}" if scheme.of_trellis else own
        found[scheme] = own or (PACKED if packed else INTEGER)
        if conv1d and alone and found[scheme] == PACKED and (scheme.symmetric or scheme.group_size):
            found[scheme] = TRANSPOSED
        elif looked_at and alone and found[scheme] == PACKED:
            found[scheme] = UNPACKED
    return found


def quantization_config(
    schemes: Mapping[str, Scheme],
    form_of: Mapping[Scheme, str],
    unquantized: list[str],
    cache: dict[str, Any] | None = None,
    stop: str | None = None,
) -> dict[str, Any]:
    """``quantization_config`` for layers by name, stored as ``form_of`` says; ``unquantized`` names the other
    linear modules of the model, ``cache`` is the scheme of its key/value cache, and ``stop`` one of the
    targets above, which no other reader gets past.
    """
    by_scheme: dict[Scheme, list[str]] = defaultdict(list)
    for name, scheme in schemes.items():
        by_scheme[scheme].append(name)
    groups = {}
    for index, (scheme, names) in enumerate(by_scheme.items()):
        activations = float_activations_of(scheme) if scheme.format != "int" else None
        if scheme.activations and scheme.format == "int":
            activations = {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": scheme.activations,
                "dynamic": not scheme.calibrated,
            }
        transposed = form_of[scheme] == TRANSPOSED
        groups[f"group_{index}"] = {
            "targets": _targets(names, len(by_scheme) == 1, stop, transposed),
            "weights": _transposed(scheme) if transposed else _weights_of(scheme),
            "input_activations": activations,
            "output_activations": None,
            "format": PACKED if form_of[scheme] in (TRANSPOSED, UNPACKED) else form_of[scheme],
        }
    found = {group["format"] for group in groups.values()}
    packed_zero_points = any(form_of[scheme] == PACKED and not scheme.symmetric for scheme in by_scheme)
    asking = any(form_of[scheme] in (TRANSPOSED, UNPACKED) for scheme in by_scheme)
    dense = [form_of[scheme] in _DENSE and not scheme.activations for scheme in by_scheme]
    return {
        "quant_method": "compressed-tensors",
        "format": MIXED if len(found) > 1 else next(iter(found), DENSE),
        **({"dequantize": True} if packed_zero_points or asking or dense == [True] else {}),
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": unquantized,
        "kv_cache_scheme": cache,
    }


def published_config(cache: dict[str, Any] | None) -> dict[str, Any]:
    """``quantization_config`` of a gpt-oss that is :data:`PUBLISHED`; ``cache`` as above, which transformers
    does not look for there.
    """
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    settings = {"quant_method": PUBLISHED, "modules_to_not_convert": kept}
    return settings if cache is None else {**settings, "kv_cache_scheme": cache}


def _targets(names: list[str], alone: bool, stop: str | None, transposed: bool) -> list[str]:
    if transposed:
        return [NEEDS_NEWER, CONV1D]
    return ([] if stop is None else [stop]) + (["Linear"] if alone else names)


def _weights_of(scheme: Scheme) -> dict[str, Any]:
    if scheme.format != "int" and not (scheme.of_gguf or scheme.of_trellis):
        return _float_weights_of(scheme)
    grouped = scheme.group_size is not None
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": "group" if grouped else "channel",
        "group_size": scheme.group_size,
        "dynamic": False,
    }


def _transposed(scheme: Scheme) -> dict[str, Any]:
    """The ``weights`` of a group whose tensors are stored ``[in, out]``; a scale of a channel is a row."""
    if scheme.group_size is None:
        return _weights_of(scheme)
    block = {"strategy": "block", "group_size": None, "block_structure": [scheme.group_size, 1]}
    return {**_weights_of(scheme), **block}


def _float_weights_of(scheme: Scheme) -> dict[str, Any]:
    """The ``weights`` of a group of quantization_config."""
    described = {"num_bits": scheme.bits, "type": "float", "symmetric": True, "dynamic": False}
    if scheme.format == "fp8":
        return {**described, "strategy": "channel", "group_size": None}
    return {**described, **_grouped(scheme)}


def float_activations_of(scheme: Scheme) -> dict[str, Any] | None:
    """The ``input_activations`` of a group of quantization_config."""
    if scheme.activations is None:
        return None
    described: dict[str, Any] = {"num_bits": scheme.bits, "type": "float", "symmetric": True}
    if scheme.format == "fp8":
        return {**described, "strategy": scheme.activations, "dynamic": not scheme.calibrated}
    return {**described, **_grouped(scheme), "dynamic": "local" if scheme.calibrated else True}


def _grouped(scheme: Scheme) -> dict[str, Any]:
    scale = ("group", "torch.uint8") if scheme.format == "mxfp4" else ("tensor_group", "torch.float8_e4m3fn")
    return {"strategy": scale[0], "group_size": scheme.group_size, "scale_dtype": scale[1]}
