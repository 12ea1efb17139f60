"""ONNX Runtime's quantizer of MatMul weights: its default rounding, k-quant and HQQ."""

from typing import Any

from ..contract import CompressionTask, QuantizerVariant
from ._dense import is_linear, write_dense

TITLE = "onnxruntime"
PACKAGES = (
    "onnxruntime==1.32.0",
    "onnx",
    "onnx-ir",
    "torch",
    "safetensors",
)
DISTRIBUTIONS = ("onnxruntime", "onnx")
VARIANTS = {
    "w4-default": QuantizerVariant("RTN", 4, scale_bits=32, calibrated=False),
    "w4-k-quant": QuantizerVariant("k-quant", 4, scale_bits=32, zero_bits=4, calibrated=False),
    "w4-hqq": QuantizerVariant("HQQ", 4, scale_bits=32, zero_bits=32, calibrated=False),
    "w2-default": QuantizerVariant("RTN", 2, scale_bits=32, calibrated=False),
}


def quantize(task: CompressionTask, variant: str) -> None:
    """One graph with a MatMul for every layer goes through ``MatMulNBitsQuantizer``."""
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    chosen, model = VARIANTS[variant], _graph(task)
    bits, block = chosen.bits, chosen.group_size or 0
    if variant.endswith("k-quant"):
        algorithm = nbits.KQuantWeightOnlyQuantConfig()
    elif variant.endswith("hqq"):
        algorithm = nbits.HQQWeightOnlyQuantConfig(block_size=block, bits=bits)
    else:
        algorithm = nbits.DefaultWeightOnlyQuantConfig(block_size=block, bits=bits, is_symmetric=True)
    quantizer = nbits.MatMulNBitsQuantizer(model, block_size=block, bits=bits, algo_config=algorithm)
    quantizer.process()
    write_dense(task, chosen, _decoded(quantizer.model.model, block))


def _graph(task: CompressionTask) -> Any:
    import onnx
    from onnx import helper, numpy_helper
    from safetensors.numpy import load_file

    nodes, initializers, inputs, outputs = [], [], [], []
    for file in sorted(task.checkpoint.glob("*.safetensors")):
        for name, weight in load_file(file).items():
            layer = name.removesuffix(".weight")
            if not is_linear(layer):
                continue
            rows, columns = weight.shape
            initializers.append(numpy_helper.from_array(weight.T.copy(), name))
            nodes.append(helper.make_node("MatMul", [f"{layer}.in", name], [f"{layer}.out"], layer))
            kind = onnx.TensorProto.FLOAT
            inputs.append(helper.make_tensor_value_info(f"{layer}.in", kind, ["tokens", columns]))
            outputs.append(helper.make_tensor_value_info(f"{layer}.out", kind, ["tokens", rows]))
    graph = helper.make_graph(nodes, "layers", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def _decoded(model: Any, block: int) -> dict[str, Any]:
    """Float32 weights by layer, computed by MatMulNBits itself from one row of the identity at a time."""
    import numpy as np
    import torch
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type != "MatMulNBits":
            raise SystemExit(f"{node.name} was left as {node.op_type}")
        given = {attribute.name: attribute.i for attribute in node.attribute}
        rows, columns, bits = given["N"], given["K"], given["bits"]
        if given["block_size"] != block:
            raise SystemExit(f"{node.name} has blocks of {given['block_size']}, not {block}")
        codes = _codes(constants[node.input[1]].reshape(rows, -1), bits)
        scales = constants[node.input[2]].reshape(rows, -1)
        zeros: Any = 1 << (bits - 1)
        if len(node.input) > 3 and node.input[3]:
            stored = constants[node.input[3]].reshape(rows, -1)
            zeros = _codes(stored, bits)[:, : scales.shape[1]] if stored.dtype == np.uint8 else stored
            zeros = np.repeat(zeros, block, 1)
        values = (codes - zeros) * np.repeat(scales, block, 1)
        found[node.output[0].removesuffix(".out")] = torch.from_numpy(values[:, :columns].astype(np.float32))
    return found


def _codes(packed: Any, bits: int) -> Any:
    """Codes along the rows of ``packed``, the lowest bits first."""
    import numpy as np

    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = (packed[:, :, None] >> shifts) & ((1 << bits) - 1)
    return values.reshape(len(packed), -1).astype(np.int64)
