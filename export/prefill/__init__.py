"""The prefill graph of a decoder bundle: how it is written, smoothed and proven.

Import ``prefill_graph`` and ``prefill_proof``; only ``formats/onnx`` does.
"""
