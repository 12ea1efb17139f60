"""In which form a graph is written for each execution provider: data, and the rewriting that makes it so.

The builders know one form, that of the CPU; the others, of standard operators, float16 or both, come of
rewriting it. What a provider does not support (``GroupQueryAttention`` in TensorRT) runs on the next one.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....errors import CheckpointError, InputError, UnknownName
from ....runtime.kernels.library import library
from ..attention.attention import without_sinks
from ..graph_writer import Array, GraphWriter
from .qdq import INT2_OPSET, to_qdq
from .standard import to_standard

# What manifest, card and output say of a graph that its provider has not computed anything with.
NOT_RUN = "built, not run"


@dataclass(frozen=True)
class ProviderForm:
    """How graphs are written for one provider.

    Attributes:
        dtype: of activations, norms, scales and the cache.
        linears: ``nbits`` are ``MatMulNBits`` in a graph of ONNX Runtime's own operators; ``qdq`` are
            ``DequantizeLinear`` by blocks and ``MatMul`` in a graph of standard operators (but for the
            attention), which a provider fuses as it can; ``tiles`` are edgepress's own operators, which run
            in edgepress alone.
        activations: of the CPU's products whose weights alone are quantized: rounded to ``int8`` by groups,
            or ``float32`` as they come, which is slower.
    """

    name: str
    dtype: Literal["float32", "float16"]
    linears: Literal["nbits", "qdq", "tiles"]
    activations: Literal["int8", "float32"] = "int8"

    @property
    def built(self) -> bool:
        """Whether the builders write it as it is: for the CPU, with either set of operators."""
        return self.name == CPU.name

    @property
    def standard(self) -> bool:
        """Whether it is the CPU's with the operators of ONNX Runtime."""
        return self.built and self.linears != OWN.linears

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        described = {"name": self.name, "dtype": self.dtype, "linears": self.linears}
        return described | ({"activations": self.activations} if self.built else {})


CPU = ProviderForm("cpu", "float32", "nbits")
OWN = ProviderForm("cpu", "float32", "tiles")
OPERATORS = ("edgepress", "standard")
ACTIVATIONS = ("int8", "float32")
FORMS = {
    form.name: form
    for form in (
        CPU,
        ProviderForm("cuda", "float16", "nbits"),
        ProviderForm("openvino", "float32", "qdq"),
        ProviderForm("tensorrt", "float16", "qdq"),
    )
}


def provider_form(name: str, operators: str | None = None, activations: str = "int8") -> ProviderForm:
    """The form for the provider ``name`` with ``operators``, of :data:`OPERATORS`; when None with
    edgepress's own where they are built and run. ``activations`` are one of :data:`ACTIVATIONS`.
    """
    if activations not in ACTIVATIONS:
        raise UnknownName("type of activations", activations, ACTIVATIONS)
    form = _form_with(name, operators)
    if activations == "int8":
        return form
    if not form.built:
        raise InputError(
            f"how {name} computes is its own choice", fix="leave --activations out, or export for the cpu"
        )
    return replace(form, activations="float32")


def _form_with(name: str, operators: str | None) -> ProviderForm:
    if name not in FORMS:
        raise UnknownName("provider", name, FORMS)
    if operators is None:
        return OWN if name == CPU.name and library() is not None else FORMS[name]
    if operators not in OPERATORS:
        raise UnknownName("set of operators", operators, OPERATORS)
    if operators == "standard":
        return FORMS[name]
    if name != CPU.name:
        raise InputError(
            f"edgepress's own operators do not run on {name}", fix="leave --for out, or export for the cpu"
        )
    return OWN


def status_of(manifest: dict[str, Any]) -> str:
    """Whether the provider of a bundle has run it: empty for the CPU's, which every proof runs."""
    provider = manifest["graph"].get("provider", CPU.describe())
    if provider["name"] == CPU.name:
        return ""
    form = manifest["parity"].get("form", {"status": NOT_RUN, "why": "nothing was proven"})
    return f"{provider['name']}: {form['status']}" + (f" ({form['why']})" if form["why"] else "")


_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def rewrite(model: ir.Model, graph: GraphWriter, form: ProviderForm) -> None:
    """Rewrite ``model``, which came of ``graph``, in place; the sizes in ``graph`` follow."""
    without_sinks(model)
    if form.linears == "qdq":
        to_qdq(model, graph.read_per_token)
        to_standard(model)
    if form.dtype == "float16":
        to_float16(model, graph.read_per_token)
    RemoveUnusedNodesPass()(model)
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    graph.nbytes = {name: tensor.nbytes for name, tensor in tensors.items() if tensor is not None}
    graph.read_per_token = {name: size for name, size in graph.read_per_token.items() if name in graph.nbytes}
    if any(
        tensor is not None and tensor.dtype in (ir.DataType.INT2, ir.DataType.UINT2)
        for tensor in tensors.values()
    ):
        model.graph.opset_imports[""] = INT2_OPSET.version
        model.ir_version = INT2_OPSET.ir_version


def to_float16(model: ir.Model, read_per_token: dict[str, int]) -> None:
    """Change ``model`` in place: types, initializers and constants; casts between floats go.

    ``read_per_token`` are bytes by initializer and follow.
    """
    graph = model.graph
    for name, value in graph.initializers.items():
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
            value.const_value = _halved(value.const_value, name)
            read_per_token[name] = read_per_token.get(name, 0) // 2
    for node in list(graph):
        if node.op_type == "Cast" and node.attributes["to"].as_int() in _FLOATS:
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
            graph.remove(node, safe=True)
    values = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
    for value in [*values, *(output for node in graph for output in node.outputs)]:
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.FLOAT16)


def _halved(tensor: ir.TensorProtocol, name: str) -> ir.LazyTensor:
    def make() -> ir.Tensor:
        return ir.Tensor(_array(tensor.numpy(), name), dtype=ir.DataType.FLOAT16, name=name)

    return ir.LazyTensor(make, dtype=ir.DataType.FLOAT16, shape=ir.Shape(tensor.shape), name=name)


def _array(array: Array, name: str) -> Array:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if np.isinf(half).any() and not np.isinf(array).any():
        raise CheckpointError(
            f"{name} does not fit float16",
            why=f"its largest number is {float(np.abs(array).max()):.4g}, that of float16 is 65504",
            fix="export for a provider that computes in float32: --provider cpu or openvino",
        )
    return half
