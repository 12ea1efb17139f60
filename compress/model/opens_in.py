"""What plain transformers, with compressed-tensors beside it, makes of a checkpoint.

Answers are of transformers 5.24 with compressed-tensors 0.20; the tests open every family in every scheme.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..numbers.scheme import Scheme
from .checkpoint.block_sizes import BLOCK_SIZES
from .family import flattens_tokens, looks_at_weights, splits_matrices
from .kv_scheme import stated
from .weights import WeightSource

Answer = Literal["yes", "differs", "no"]


@dataclass(frozen=True)
class Opening:
    """``yes``: it gives our logits, in float32 bit for bit. ``differs``: all weights are right, but it
    computes something else with them. ``no``: it stops with an error. ``why`` is None for ``yes``.
    """

    answer: Answer
    why: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def opens_in_transformers(source: WeightSource) -> Opening:
    """The answer for the checkpoint ``source``."""
    coded = source.reader.coded
    own = () if coded.packaged else coded.by_module  # that transformers reads in their own form
    schemes = {name: scheme for name, scheme in source.schemes.items() if name not in own}
    if refusals := _refusals(source, schemes):
        return Opening("no", "; ".join(refusals))
    differences = _differences(source, schemes)
    return Opening("differs", "; ".join(differences)) if differences else Opening("yes")


def _refusals(source: WeightSource, schemes: Mapping[str, Scheme]) -> list[str]:
    family, config = source.anatomy.model_type, source.reader.config
    found = []
    coded = source.reader.coded
    if coded.described and coded.packaged:
        found.append(f"it needs the packages of its own form there: {coded.described}")
    if config.get(BLOCK_SIZES) is not None:
        found.append(f"its blocks have sizes that the config of a {family} cannot say")
    if schemes and source.conv1d and not source.packed_transposed:
        found.append(
            f"linears of a {family} are Conv1D there, which are filled from one scheme of integer weights "
            "alone (grouped, or symmetric by channel)"
        )
    if schemes and not _joins_experts(source, schemes):
        found.append(
            f"experts of a {family} become one tensor there: from floats, or from codes of weights alone, by "
            "expert, in one symmetric scheme of integers that all layers have"
        )
    dense = (config.get("quantization_config") or {}).get("dequantize")
    if looks_at_weights(config) and not dense and any(map(_packed, schemes.values())):
        found.append(f"it looks for the weights of the linears of a {family}, and finds packed ones")
    if schemes and not dense and source.anatomy.kind == "encoder_decoder":
        found.append(f"`generate` runs the encoder of a {family} by itself there, and finds codes in it")
    if schemes and splits_matrices(config):
        found.append(f"it makes two matrices of one as it opens a {family}, and cannot where there are codes")
    if any(scheme.of_gguf for scheme in schemes.values()):
        found.append("compressed-tensors does not know GGUF's types: `edgepress export --format gguf`")
    if any(scheme.of_trellis for scheme in schemes.values()):
        found.append("no other package knows trellis grids: `edgepress export` writes a bundle")
    four_bit_floats = any(scheme.format in ("mxfp4", "nvfp4") for scheme in schemes.values())
    if four_bit_floats and not dense:
        stored = source.stored_type(f"{source.anatomy.embedding}.weight")
        kind = config.get("dtype") or config.get("torch_dtype") or stored
        if str(kind).removeprefix("torch.") != "bfloat16":
            found.append(
                "4-bit floats become bfloat16 there, whatever the model is: pass dtype=torch.bfloat16"
            )
    return found


def _joins_experts(source: WeightSource, schemes: Mapping[str, Scheme]) -> bool:
    """Whether transformers makes its tensors of all experts from those that are stored."""
    blocks = source.anatomy.blocks
    found = {schemes.get(linear.name) for block in blocks for linear in block.expert_linears()}
    if not found or any(source.anatomy.stacked_experts()):
        return found <= {None}
    scheme, alone = found.pop(), not found and len(set(schemes.values())) == 1
    return alone and scheme is not None and scheme.symmetric and not scheme.activations


def _packed(scheme: Scheme) -> bool:
    """Whether several codes share a stored number."""
    return scheme.bits < 8 or (scheme.format == "int" and not scheme.activations)


def _differences(source: WeightSource, schemes: Mapping[str, Scheme]) -> list[str]:
    found = []
    if source.kv_scheme is not None:
        own = stated(source.kv_scheme, source.anatomy.kind)[0] is None
        why = "its scheme is edgepress's own" if own else "5.20 to 5.23 rounded it"
        found.append(f"the key/value cache stays in float there ({why})")
    experts = (linear for block in source.anatomy.blocks for linear in block.expert_linears())
    if any(linear.name in schemes for linear in experts):
        found.append("the weights of experts become float16 there, whatever the model is")
    by_token = {name for name, scheme in schemes.items() if scheme.activations == "token"}
    if by_token and flattens_tokens(source.reader.config):
        mlps = [block.mlp for block in source.anatomy.blocks]
        if by_token & {linear.name for mlp in mlps for linear in (mlp.up, mlp.down)}:
            found.append(
                "what the MLP reads is not rounded there, since it comes without a dimension of tokens"
            )
    return found
