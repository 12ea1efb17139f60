"""The operators of edgepress's own: a small library in C, and ``library``, which finds it.

``src`` has the operators for ONNX Runtime's interface, and their kernels for each set of instructions. It
knows no other room of the runtime.
"""
