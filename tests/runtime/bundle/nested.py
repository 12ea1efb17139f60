"""ONNX files whose graphs lie inside each other, written byte by byte: onnx refuses deep ones."""

_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_TENSOR, _NODE_ATTRIBUTE, _ATTRIBUTE_GRAPH = 7, 1, 5, 5, 6


def _varint(value: int) -> bytes:
    written = b""
    while value >= 0x80:
        written += bytes([value & 0x7F | 0x80])
        value >>= 7
    return written + bytes([value])


def nested_graphs(depth: int, tensor: bytes) -> bytes:
    """A model with a graph that has so many graphs inside each other, ``tensor`` in the innermost: with
    those around it ``3 · depth + 3`` messages deep.
    """
    size, heads = len(tensor), []
    for number in (
        _GRAPH_TENSOR,
        *(_ATTRIBUTE_GRAPH, _NODE_ATTRIBUTE, _GRAPH_NODE) * depth,
        _MODEL_GRAPH,
    ):
        heads.append(_varint(number << 3 | 2) + _varint(size))
        size += len(heads[-1])
    return b"".join(reversed(heads)) + tensor
